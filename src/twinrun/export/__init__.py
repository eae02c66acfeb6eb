"""Finished records for the trackers that others use; each tracker's package is an optional extra."""
