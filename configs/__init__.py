"""Experiment configs: each file imports `common` and changes a few lines."""
