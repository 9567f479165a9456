"""Where do training frames come from?

Raw videos or drawn puppets go in; shards and batches come out.
"""
