"""First Order Motion Model for Image Animation (Siarohin et al., NeurIPS 2019)."""
