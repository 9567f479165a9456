"""How does the browser demo work?"""
