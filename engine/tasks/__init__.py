"""Data to learn from: one file a source. Each has a pydantic model `Config` and `load(config) -> LabelledImages`."""
