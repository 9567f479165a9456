"""Convolutions for a CPU in C++, used if the machine has a compiler; otherwise XLA's are used."""
