"""What are the puppets? Drawn videos of articulated figures, so that the truth is known.

`identity` says how a figure looks, `pose` how it moves, `draw` makes frames and truth, `dataset` lays out
clips.
"""
