"""Search spaces: one file or folder a space, each with a pydantic model `Config` and
`build(config, in_channels=..., classes=...) -> SearchSpace`. A small configuration called `EXAMPLE` is what the contract
tests build it from.
"""
