"""Building blocks that every system shares: layers, blocks, resizes, and the pure face of a network."""
