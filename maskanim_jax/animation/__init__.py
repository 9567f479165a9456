"""How does a still image move?"""
