"""How do devices and processes work together?"""
