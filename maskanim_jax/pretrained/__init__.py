"""Which networks of others are used, where are they from, and what do they see?"""
