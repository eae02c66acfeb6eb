"""Data sets and weights from their public homes."""
