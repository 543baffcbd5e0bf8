"""The commands of `hwnas table`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.engine.cli import stages
from hwnas.engine.cli.failures import DRIFT, told
from hwnas.engine.cli.options import Config, Device, Json, Out, Table, answer, asked, run_of
from hwnas.engine.cli.terminal import Terminal
from hwnas.engine.config import read_config
from hwnas.engine.hardware import open_bench, open_table, table_quality
from hwnas.engine.run import Run
from hwnas.engine.spaces.mobilenet_v3 import once_for_all
from hwnas.latency import LatencyTable, accept, check_drift
from hwnas.latency.connections import as_url
from hwnas.latency.exchange import export_table, import_table

app = typer.Typer(no_args_is_help=True, help="Build, show, check and exchange the latency table of a device.")

Budget = Annotated[float | None, typer.Option("--budget-minutes", help="Stop after about so long; the rest waits")]


@app.command("build", epilog="Example: hwnas table build examples/digits.toml --device host --budget-minutes 10")
@told
def build(
    config: Config,
    out: Out = None,
    device: Device = None,
    table: Table = None,
    budget_minutes: Budget = None,
    as_json: Json = False,
) -> None:
    """Compile and measure every block that the space can need; run again after an interruption to go on."""
    changes = {"path": table, "budget_minutes": budget_minutes}
    run = run_of(read_config(config), out=out, device=device, table=changes)
    runs = [run.on(name) for name in asked(run, device)]
    for own in runs:
        with open_bench(own) as bench:
            stages.build(own, bench, Terminal()).close()
    _show(runs, as_json)


@app.command("show", epilog="Example: hwnas table show examples/digits.toml --json")
@told
def show(config: Config, out: Out = None, device: Device = None, table: Table = None, as_json: Json = False) -> None:
    """Show what the latency table holds and how wrong its predictions are."""
    run = run_of(read_config(config), out=out, device=device, table={"path": table})
    _show([run.on(name) for name in asked(run, device)], as_json)


@app.command("check", epilog="Example: hwnas table check examples/digits.toml --device host")
@told
def check(
    config: Config,
    out: Out = None,
    device: Device = None,
    table: Table = None,
    rescale: Annotated[bool, typer.Option("--rescale", help="Accept a change that one factor tells")] = False,
    patience: Annotated[
        float, typer.Option("--patience", min=0, help="Seconds to look before the device is called moved")
    ] = 80.0,
    as_json: Json = False,
) -> None:
    """Say how wrong the table is, and whether the device is still what it was; exit code 5 where it is not.

    A few of the table's own artefacts are timed again, in less than two minutes. A table whose device has moved is
    refused by later searches until it has moved back, or the change was accepted with --rescale.
    """
    run = run_of(read_config(config), out=out, device=device, table={"path": table})
    with open_bench(run) as bench:
        opened = open_table(run, bench)
        try:
            drift = check_drift(opened, bench.runner, bench.compiler.library, bench.protocol, patience_s=patience)
            opened.note_check(drift.check)
            if drift.moved and rescale:
                accept(opened, drift)
            found = table_quality(run, opened)
            scale = opened.scale
        finally:
            opened.close()
    speed = drift.check.speed
    answer(
        as_json,
        {
            "verdict": drift.check.verdict,
            "speed": round(speed, 4),
            "interval": [round(drift.check.low, 4), round(drift.check.high, 4)],
            "allowed": round(drift.allowed, 4),
            "sentinels": drift.check.sentinels,
            "looks": drift.looks,
            "one_factor": drift.common,
            "rescaled_by": scale,
            "quality": None if found is None else stages.quality_json(found),
        },
    )
    if drift.moved and not rescale:
        Terminal().say(
            f"hwnas: the device takes {speed / scale:.2f} times as long as its table says "
            f"(it swings by {drift.allowed:.0%} by itself): searches refuse the table until it moves back, or accept "
            "the change with --rescale, or build a new one",
            style="bold red",
        )
        raise typer.Exit(DRIFT)


@app.command("export", epilog="Example: hwnas table export examples/digits.toml table.parquet")
@told
def export(
    config: Config,
    path: Annotated[Path, typer.Argument(help=".parquet or .json, whole; .yaml, as Once-for-All writes them")],
    out: Out = None,
    device: Device = None,
    table: Table = None,
    as_json: Json = False,
) -> None:
    """Write the table to one file, with every raw run and where it came from."""
    run = run_of(read_config(config), out=out, device=device, table={"path": table})
    opened = stages.table_of(run)
    try:
        written = export_table(opened, path, name_of=once_for_all.name_of)
    finally:
        opened.close()
    answer(as_json, {"path": str(path), "rows": written.rows, "left_out": list(written.left_out)})


@app.command("import", epilog="Example: hwnas table import examples/digits.toml table.parquet")
@told
def import_(
    config: Config,
    path: Annotated[Path, typer.Argument(help="What `hwnas table export` wrote, or a YAML of Once-for-All")],
    out: Out = None,
    device: Device = None,
    table: Table = None,
    as_json: Json = False,
) -> None:
    """Read a table from a file into the run's database; what is there already stays."""
    run = run_of(read_config(config), out=out, device=device, table={"path": table})
    read = import_table(path, run.table_path, name=device, block_of=once_for_all.block_of)
    answer(as_json, {"table": as_url(run.table_path).render_as_string(hide_password=True), **asdict(read)})


def _show(runs: Sequence[Run], as_json: bool) -> None:
    """One table as ever; several under the names of their devices."""
    shown = {}
    for run in runs:
        opened = stages.table_of(run)
        try:
            frame, summary = opened.to_frame(), _summary(run, opened)
        finally:
            opened.close()
        if as_json:
            shown[run.config.device.name] = {**summary, "rows": json.loads(frame.to_json(orient="records"))}
        else:
            typer.echo(frame.to_string(max_rows=40, max_colwidth=60))
            answer(False, summary)
    if as_json:
        typer.echo(json.dumps(next(iter(shown.values())) if len(shown) == 1 else {"tables": shown}))


def _summary(run: Run, opened: LatencyTable) -> dict[str, Any]:
    found = table_quality(run, opened)
    return {
        "table": str(opened.database),
        "device": opened.device.name,
        "modelled": opened.modelled,
        "fingerprint": opened.fingerprint.to_json(),
        "protocol": opened.protocol.to_json(),
        "blocks": len(opened.block_rows()),
        "failed": len(opened.failures()),
        "networks": len(opened.networks()),
        "visits": len(opened.visits()),
        "rescaled_by": opened.scale,
        "quality": None if found is None else stages.quality_json(found),
    }
