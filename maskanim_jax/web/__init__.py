"""How does the demo in the browser work?"""
