"""How is animation exported for use in other programs?"""
