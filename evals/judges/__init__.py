"""Who says what an answer is: instruments, and the judges that apply them.

An instrument is a question about a text with a fixed list of allowed values. A judge applies
instruments; each of its labels says who judged, with which prompt, and whether it could.
"""
