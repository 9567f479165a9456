"""How are untrusted npz, pickle and PyTorch files read safely?"""
