"""How is training state saved and restored?"""
