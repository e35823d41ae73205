"""Arc 2: which attention heads carry a disposition, and does damping them move it alone?"""
