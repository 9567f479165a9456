"""Losses that systems share."""
