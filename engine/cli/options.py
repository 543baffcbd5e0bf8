"""What commands share: options, the run they work on, and how they answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.engine.config import ConfigError, RunConfig
from hwnas.engine.run import Run

Config = Annotated[Path, typer.Argument(help="TOML file of the run, e.g. examples/digits.toml", show_default=False)]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for runs, instead of [run] folder")]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON on standard output")]
Device = Annotated[str | None, typer.Option("--device", help="Device, instead of [device] name")]
Table = Annotated[
    str | None, typer.Option("--table", help="Latency table's database, a file or a URL, instead of the run's own")
]
MaxLatency = Annotated[float | None, typer.Option("--max-latency-ms", help="Hard upper limit on latency")]


def run_of(
    config: RunConfig,
    *,
    out: Path | None,
    device: str | None = None,
    table: dict[str, Any] | None = None,
    search: dict[str, Any] | None = None,
) -> Run:
    """The run with what the command line overrides, its folder ready."""
    if out is not None:
        config = replace(config, run=config.run.model_copy(update={"folder": out, "cache": out / "cache"}))
    if device is not None:
        config = config.with_device(device)
    config = replace(config, table=config.table.model_copy(update=_given(table)))
    config = replace(config, search=config.search.model_copy(update=_given(search)))
    run = Run(config)
    run.begin()
    return run


def asked(run: Run, device: str | None) -> tuple[str, ...]:
    """The devices that a command is about: the one it names, or all of the run."""
    return run.config.device.names if device is None else (device,)


def _given(overrides: dict[str, Any] | None) -> dict[str, Any]:
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    for key, value in given.items():
        if not isinstance(value, str) and not value > 0:
            raise ConfigError(f"--{key.replace('_', '-')} {value}: give a number above 0")
    return given


def answer(as_json: bool, data: dict[str, Any]) -> None:
    """Answer on standard output: one JSON object, or a line a value."""
    if as_json:
        typer.echo(json.dumps(data))
        return
    for key, value in data.items():
        typer.echo(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")
