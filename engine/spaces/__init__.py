"""Search spaces: one file or folder a space, each with a pydantic model `Config` and
`build(config, in_channels=..., classes=...) -> SearchSpace`. The contract tests build it from a small configuration
called `EXAMPLE`; `ORDERED = False` says that options do not go from small to large, so that no architecture is the
largest.
"""
