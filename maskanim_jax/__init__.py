"""Image Animation with Perturbed Masks (Shalev and Wolf, CVPR 2022) in JAX and Flax.

Importing this package imports nothing heavy: reader processes and `--help` stay quick.
"""

__version__ = "0.1.0"
