"""Instruments that look inside training: first differences, operations, costs, controlled blocks."""
