"""Are we faster than others on this machine, and with less memory? The parts of `python -m benchmarks.against_pytorch`."""
