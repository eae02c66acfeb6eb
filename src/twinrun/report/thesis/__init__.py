"""The thesis's published tables: read, checked, and set beside a study's own."""
