"""What runs inside a foreign program's processes: the standard library and its own torch (2.6 or later) alone."""
