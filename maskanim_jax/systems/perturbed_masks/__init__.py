"""Image Animation with Perturbed Masks (Shalev and Wolf, CVPR 2022)."""
