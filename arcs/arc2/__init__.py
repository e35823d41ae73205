"""Arc 2: which attention heads carry a disposition, and can damping them move it and keep content?"""
