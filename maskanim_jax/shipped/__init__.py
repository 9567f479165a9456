"""What comes with the package, so that `animate` works right after the installation? Checkpoints, a picture and a video of drawn figures.

A checkpoint is a folder: variables.npz (parameters and batch statistics by path, plain arrays), config.json, and card.json (step, SHA-256 of both,
figures, where it is from); beside them source.png and driving.mp4. `reading` loads it, `pack` makes it.
"""
