"""How are files written whole, hashed and cached?"""
