"""What are the puppets? Drawn videos of articulated figures, whose ground truth is known.

`identity` (version 1) and `character` (version 2) define how a figure looks, `pose` how it moves.
`draw` makes frames and ground truth. For version 2, `character_body`, `_clothes` and `_head` give
the shapes and `raster` paints them. `dataset` writes clips.
"""
