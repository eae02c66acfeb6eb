"""One run, from its set-up to its record: what a run imports, and nothing else."""
