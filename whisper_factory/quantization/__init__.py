"""Weights to integers and scales. Knows no backend: each packs these integers in its own way."""
