"""What are the parts of `python -m benchmarks.against_pytorch`?"""
