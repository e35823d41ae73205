"""Do features tell whether an answer is right? Probes, their controls and their rivals."""
