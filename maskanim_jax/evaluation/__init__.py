"""How good is a run?"""
