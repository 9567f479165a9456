"""How are videos and images read and written?"""
