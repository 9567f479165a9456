"""Convolutions for a CPU, in C++ where the machine has a compiler; XLA's own where it has none."""
