"""How fast, accurate and memory-hungry is the project on this accelerator?

Run `python -m benchmarks.accelerator --minutes=8` on a machine with a GPU or TPU. It needs jax,
flax, optax, orbax, numpy and ml_collections. With Pillow the test frames are drawn figures; with
torch the released layout is measured, too.
"""
