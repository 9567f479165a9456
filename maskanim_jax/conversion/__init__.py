"""How do the authors' checkpoints become ours, and ours theirs?"""
