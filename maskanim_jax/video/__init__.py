"""How do frames come in and go out?"""
