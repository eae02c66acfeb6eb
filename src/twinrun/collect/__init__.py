"""From run records to the collected study, and back: gather, load, and hand out groups of runs."""
