"""The commands of `hwnas devices`."""

from __future__ import annotations

import typer

from hwnas.engine.cli import stages
from hwnas.engine.cli.failures import told
from hwnas.engine.cli.options import Json, answer
from hwnas.engine.hardware import find_device

app = typer.Typer(no_args_is_help=True, help="Say which devices there are and what they are; lend boards.")


@app.command("list", epilog="Example: hwnas devices list --json")
@told
def list_(as_json: Json = False) -> None:
    """List the devices."""
    answer(as_json, {"devices": [find_device("host").to_json()]})


@app.command("probe", epilog="Example: hwnas devices probe host")
@told
def probe(name: str = typer.Argument("host", help="A name from `hwnas devices list`"), as_json: Json = False) -> None:
    """Open a device and say what was found there."""
    answer(as_json, stages.probe(name))
