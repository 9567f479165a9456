"""What are the puppets? Drawn videos of articulated figures whose silhouettes, joints and animations are known exactly.

`identity` says how a figure looks, `pose` how it moves, `draw` makes the frame and its truth, `dataset` lays out clips.
"""
