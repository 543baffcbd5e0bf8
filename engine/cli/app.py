"""The commands."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hwnas import __version__
from hwnas.engine.cli import stages
from hwnas.engine.cli.failures import told
from hwnas.engine.cli.terminal import Terminal
from hwnas.engine.config import ConfigError, RunConfig, parse_config, read_config
from hwnas.engine.front import Front
from hwnas.engine.hardware import Latency, find_device, open_bench, open_table, quality
from hwnas.engine.run import Run

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Hardware-aware neural architecture search. Exit codes: 0 done, 1 failure, 2 usage or bad configuration, "
    "3 infeasible limit, 4 device unreachable.",
)
table_app = typer.Typer(no_args_is_help=True, help="Build and show the latency table of a device.")
front_app = typer.Typer(no_args_is_help=True, help="Show, choose from, verify and export the front.")
devices_app = typer.Typer(no_args_is_help=True, help="Say which devices there are and what they are.")
app.add_typer(table_app, name="table")
app.add_typer(front_app, name="front")
app.add_typer(devices_app, name="devices")

Config = Annotated[Path, typer.Argument(help="TOML file of the run, e.g. examples/digits.toml", show_default=False)]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for runs, instead of [run] folder")]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON on standard output")]
Device = Annotated[str | None, typer.Option("--device", help="Device, instead of [device] name")]
Table = Annotated[Path | None, typer.Option("--table", help="Latency table's database, instead of the run's own")]
MaxLatency = Annotated[float | None, typer.Option("--max-latency-ms", help="Hard upper limit on latency")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Say the version and stop")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command(epilog="Example: hwnas demo --out runs")
@told
def demo(
    out: Out = None,
    fast: Annotated[bool, typer.Option("--fast", help="A smaller space, trained briefly: a check, no result")] = False,
    as_json: Json = False,
) -> None:
    """Run every stage on handwritten digits: train, measure, search, verify, export, report."""
    name = "digits_fast.toml" if fast else "digits.toml"
    text = files("hwnas.engine").joinpath(name).read_text(encoding="utf-8")
    run = _run(parse_config(text, source=name), out=out)
    terminal = Terminal()
    stages.train(run, terminal)
    with open_bench(run) as bench:
        table = stages.build(run, bench, terminal)
        try:
            stages.search(run, table, terminal)
            verified = stages.verify_front(run, bench, table, terminal)
            front = verified.front
            exported = stages.export(run, bench, front, terminal, libraries=verified.libraries)
            report = stages.report(run, table)
        finally:
            table.close()
    _show_front(front, as_json, {"front": str(run.front_path), "report": str(report), "exported": exported})
    terminal.say(f"front:  {run.front_path}\nexport: {run.folder / 'export'}\nreport: {report}")


@app.command(epilog="Example: hwnas train examples/digits.toml")
@told
def train(config: Config, out: Out = None, as_json: Json = False) -> None:
    """Train the supernet; run again after an interruption to go on."""
    run = _run(read_config(config), out=out)
    history = stages.train(run, Terminal())
    last = history[-1]
    _answer(
        as_json,
        {
            "checkpoint": str(run.supernet_folder),
            "epochs": last.epoch,
            "accuracy_largest": last.accuracy_largest,
            "accuracy_smallest": last.accuracy_smallest,
        },
    )


@table_app.command("build", epilog="Example: hwnas table build examples/digits.toml --device host")
@told
def table_build(
    config: Config, out: Out = None, device: Device = None, table: Table = None, as_json: Json = False
) -> None:
    """Compile and measure every block that the space can need; run again after an interruption to go on."""
    run = _run(read_config(config), out=out, device=device, table=table)
    with open_bench(run) as bench:
        stages.build(run, bench, Terminal()).close()
    _show_table(run, as_json)


@table_app.command("show", epilog="Example: hwnas table show examples/digits.toml --json")
@told
def table_show(
    config: Config, out: Out = None, device: Device = None, table: Table = None, as_json: Json = False
) -> None:
    """Show what the latency table holds and how wrong its predictions are."""
    _show_table(_run(read_config(config), out=out, device=device, table=table), as_json)


@app.command(epilog="Example: hwnas search examples/digits.toml --max-latency-ms 0.5 --resume")
@told
def search(
    config: Config,
    out: Out = None,
    max_latency_ms: MaxLatency = None,
    evaluations: Annotated[int | None, typer.Option(min=1, help="Candidates, instead of [search]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted search")] = False,
    table: Table = None,
    as_json: Json = False,
) -> None:
    """Search with the latency table and the supernet of the run; writes the predicted front.

    Every evaluation is kept, so the same search always goes on where it was; --resume insists that there is one.
    """
    changes = {"max_latency_ms": max_latency_ms, "evaluations": evaluations}
    run = _run(read_config(config), out=out, search=changes, table=table)
    if resume and not run.journal_path.exists():
        raise ConfigError(f"{run.journal_path}: there is no search to resume: leave --resume out")
    opened = stages.table_of(run)
    try:
        front = stages.search(run, opened, Terminal())
    finally:
        opened.close()
    _show_front(front, as_json, {"front": str(run.front_path)})


@front_app.command("show", epilog="Example: hwnas front show examples/digits.toml")
@told
def front_show(config: Config, out: Out = None, as_json: Json = False) -> None:
    """Show the front."""
    run = _run(read_config(config), out=out)
    _show_front(run.front(), as_json, {"front": str(run.front_path)})


@front_app.command("pick", epilog="Example: hwnas front pick examples/digits.toml --max-latency-ms 0.3")
@told
def front_pick(
    config: Config,
    out: Out = None,
    max_latency_ms: MaxLatency = None,
    min_accuracy: Annotated[float | None, typer.Option(min=0, max=1, help="Least accuracy, 0 to 1")] = None,
    as_json: Json = False,
) -> None:
    """Choose one point: the most accurate within a latency, the fastest of an accuracy, or else the knee."""
    front = _run(read_config(config), out=out).front()
    if max_latency_ms is None and min_accuracy is None:
        point = front.knee()
    else:
        point = front.pick(max_latency_ms=max_latency_ms, min_accuracy=min_accuracy)
    _answer(as_json, point.to_json())


@front_app.command("verify", epilog="Example: hwnas front verify examples/digits.toml")
@told
def front_verify(config: Config, out: Out = None, as_json: Json = False) -> None:
    """Compile every candidate whole, measure it on the device, score it on the test split, and sort again."""
    run = _run(read_config(config), out=out)
    with open_bench(run) as bench:
        table = open_table(run, bench)  # refused where it is of another device
        try:
            front = stages.verify_front(run, bench, table, Terminal()).front
        finally:
            table.close()
    _show_front(front, as_json, {"front": str(run.front_path)})


@front_app.command("export", epilog="Example: hwnas front export examples/digits.toml")
@told
def front_export(config: Config, out: Out = None, as_json: Json = False) -> None:
    """Write every point of the verified front as a folder of loadable artefacts, each checked against the supernet."""
    run = _run(read_config(config), out=out)
    with open_bench(run) as bench:
        exported = stages.export(run, bench, run.front(), Terminal())
    _answer(as_json, {"exported": exported})


@app.command(epilog="Example: hwnas report examples/digits.toml")
@told
def report(config: Config, out: Out = None, as_json: Json = False) -> None:
    """Write the report: one HTML file that needs nothing else."""
    run = _run(read_config(config), out=out)
    table = stages.table_of(run)
    try:
        _answer(as_json, {"report": str(stages.report(run, table))})
    finally:
        table.close()


@devices_app.command("list", epilog="Example: hwnas devices list --json")
@told
def devices_list(as_json: Json = False) -> None:
    """List the devices."""
    device = find_device("host")
    _answer(as_json, {"devices": [device.to_json()]})


@devices_app.command("probe", epilog="Example: hwnas devices probe host")
@told
def devices_probe(
    name: Annotated[str, typer.Argument(help="A name from `hwnas devices list`")] = "host", as_json: Json = False
) -> None:
    """Open a device and say what was found there."""
    _answer(as_json, stages.probe(name))


def _run(
    config: RunConfig,
    *,
    out: Path | None,
    device: str | None = None,
    table: Path | None = None,
    search: dict[str, Any] | None = None,
) -> Run:
    """The run with what the command line overrides, its folder ready."""
    if out is not None:
        config = replace(config, run=config.run.model_copy(update={"folder": out, "cache": out / "cache"}))
    if device is not None:
        config = replace(config, device=config.device.model_copy(update={"name": device}))
    if table is not None:
        config = replace(config, table=config.table.model_copy(update={"path": table}))
    overrides = {key: value for key, value in (search or {}).items() if value is not None}
    for key, value in overrides.items():
        if not value > 0:
            raise ConfigError(f"--{key.replace('_', '-')} {value}: give a number above 0")
    config = replace(config, search=config.search.model_copy(update=overrides))
    run = Run(config)
    run.begin()
    return run


def _answer(as_json: bool, data: dict[str, Any]) -> None:
    if as_json:
        typer.echo(json.dumps(data))
        return
    for key, value in data.items():
        typer.echo(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")


def _show_front(front: Front, as_json: bool, more: dict[str, Any]) -> None:
    if as_json:
        typer.echo(json.dumps({**front.to_json(), **more}))
        return
    from hwnas.engine.report import front_table

    Console().print(front_table(front))


def _show_table(run: Run, as_json: bool) -> None:
    opened = stages.table_of(run)
    try:
        frame = opened.to_frame()
        found = quality(opened, Latency.of(run.space, opened, predictor=run.config.table.predictor))
        summary: dict[str, Any] = {
            "table": str(run.table_path),
            "device": opened.device.name,
            "fingerprint": opened.fingerprint.to_json(),
            "blocks": len(frame),
            "failed": len(opened.failures()),
            "networks": len(opened.networks()),
            "quality": None if found is None else stages.quality_json(found),
        }
        if as_json:
            summary["rows"] = json.loads(frame.to_json(orient="records"))
            typer.echo(json.dumps(summary))
            return
        typer.echo(frame.to_string(max_rows=40, max_colwidth=60))
        _answer(False, summary)
    finally:
        opened.close()


def main() -> None:
    """Entry point of the `hwnas` command."""
    app()
