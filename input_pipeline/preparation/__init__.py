"""How do clips become shards?"""
