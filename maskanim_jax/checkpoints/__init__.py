"""How is state saved and found again?"""
