"""How are clips turned into shards?"""
