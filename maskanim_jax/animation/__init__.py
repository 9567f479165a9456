"""What stands around an animation: is a video whole, how is the result written, which pairs are animated?"""
