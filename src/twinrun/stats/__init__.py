"""Statistics: numbers in, results out; nothing here knows a study."""
