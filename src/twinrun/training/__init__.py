"""One run: the only package that imports torch."""
