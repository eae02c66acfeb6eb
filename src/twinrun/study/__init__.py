"""The vocabulary of a study: params, grid, records and paths. Standard library, pydantic and YAML only."""
