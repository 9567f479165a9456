"""What are the puppets? Drawn videos of articulated figures, so that the truth is known.

`identity` (version 1) and `character` (version 2) say how a figure looks, `pose` how it moves. `draw` makes
frames and truth: of version 2 `character_body`, `_clothes` and `_head` give the shapes, `raster` paints them.
`dataset` lays out clips.
"""
