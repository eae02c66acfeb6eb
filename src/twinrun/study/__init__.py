"""Pure vocabulary of a study: params, grid, records and paths. Standard library and pydantic only."""
