"""The command line: `hwnas --help`."""

from hwnas.engine.cli.app import main

__all__ = ["main"]
