"""Uses of the public names as a type checker sees them: checked by mypy and basedpyright, never run."""
