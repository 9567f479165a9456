"""Where do frames come from? Raw videos or drawn puppets in, shards and batches out."""
