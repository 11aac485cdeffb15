"""Programs that write parts of the docs, check the project, and try the wheel."""
