"""Which pretrained networks are used, and how are they installed?"""
