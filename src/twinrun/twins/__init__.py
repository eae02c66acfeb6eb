"""Twins of any program: run it several times in fresh folders and compare what it leaves, to the last bit."""
