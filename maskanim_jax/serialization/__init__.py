"""How are npz files, pickles and torch files read safely?"""
