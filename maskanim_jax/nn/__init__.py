"""Building blocks that all systems share: layers, blocks, resizing, and
networks as pure functions.
"""
