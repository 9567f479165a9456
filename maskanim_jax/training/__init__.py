"""How is a system trained?"""
