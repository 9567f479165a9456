"""How fast, how exact and how large is everything on this accelerator? `python -m benchmarks.accelerator --minutes=8`.

One command for whoever has a GPU or TPU for ten minutes. It needs jax, flax, optax, orbax, numpy and ml_collections; Pillow draws better
pictures and torch runs the released layout beside it, if they are there.
"""
