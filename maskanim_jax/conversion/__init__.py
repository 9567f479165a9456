"""How are checkpoints converted from and to the authors' PyTorch format?"""
