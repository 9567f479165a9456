"""How are the operations of networks computed?"""
