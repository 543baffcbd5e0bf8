"""Search spaces: one file (or folder) a space. Each has a pydantic model `Config` and `build(config, task) -> space`."""
