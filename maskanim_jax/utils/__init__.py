"""How are files written atomically, hashed and cached?"""
