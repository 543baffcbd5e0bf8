"""The commands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hwnas import __version__
from hwnas.engine.cli import devices, stages, tables
from hwnas.engine.cli.failures import told
from hwnas.engine.cli.options import Config, Device, Json, MaxLatency, Out, Table, answer, asked, run_of
from hwnas.engine.cli.terminal import Terminal
from hwnas.engine.config import ConfigError, parse_config, read_config
from hwnas.engine.front import Front
from hwnas.engine.hardware import open_bench, open_table
from hwnas.engine.run import Run

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Hardware-aware neural architecture search. Exit codes: 0 done, 1 failure, 2 usage or bad configuration, "
    "3 infeasible limit, 4 device unreachable, 5 the device has moved since its table was measured.",
)
front_app = typer.Typer(no_args_is_help=True, help="Show, choose from, verify and export the front.")
app.add_typer(tables.app, name="table")
app.add_typer(front_app, name="front")
app.add_typer(devices.app, name="devices")


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
    run = run_of(parse_config(text, source=name), out=out)
    terminal = Terminal()
    stages.train(run, terminal)
    with open_bench(run) as bench:
        table = stages.build(run, bench, terminal)
        try:
            stages.search(run, [table], terminal)
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
    run = run_of(read_config(config), out=out)
    history = stages.train(run, Terminal())
    last = history[-1] if history else None
    answer(
        as_json,
        {
            "checkpoint": str(run.supernet_folder) if last else None,
            "epochs": last.epoch if last else 0,
            "accuracy_largest": last.accuracy_largest if last else None,
            "accuracy_smallest": last.accuracy_smallest if last else None,
        },
    )


@app.command(epilog="Example: hwnas diagnose examples/digits.toml --standalone 20")
@told
def diagnose(
    config: Config,
    out: Out = None,
    architectures: Annotated[int, typer.Option(min=3, help="Subnets that are scored")] = 100,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of subnets at each distance")] = 40,
    standalone: Annotated[int, typer.Option(min=0, help="Subnets trained alone, 3 or more; slow")] = 0,
    as_json: Json = False,
) -> None:
    """Say what the supernet's scores can be trusted for: interference, drift, recency, and truth where asked for."""
    run = run_of(read_config(config), out=out)
    found = stages.diagnose(run, Terminal(), architectures=architectures, pairs=pairs, standalone=standalone)
    if as_json:
        answer(as_json, found)


@app.command(epilog="Example: hwnas search examples/digits.toml --max-latency-ms 0.5 --resume")
@told
def search(
    config: Config,
    out: Out = None,
    device: Device = None,
    max_latency_ms: MaxLatency = None,
    evaluations: Annotated[int | None, typer.Option(min=1, help="Candidates, instead of [search]")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Along the exact front of sums, instead of [search]")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted search")] = False,
    earlier: Annotated[str | None, typer.Option(help="Journal whose accuracies are told first, a file or URL")] = None,
    table: Table = None,
    as_json: Json = False,
) -> None:
    """Search with the latency table and the supernet of the run; writes the predicted front.

    Every evaluation is kept, so the same search always goes on where it was; --resume insists that there is one.
    """
    changes: dict[str, Any] = {"max_latency_ms": max_latency_ms, "evaluations": evaluations, "earlier": earlier}
    changes["algorithm"] = "exact" if exact else None
    run = run_of(read_config(config), out=out, device=device, search=changes, table={"path": table})
    if resume and isinstance(run.journal_path, Path) and not run.journal_path.exists():
        raise ConfigError(f"{run.journal_path}: there is no search to resume: leave --resume out")
    with stages.tables_of(run, asked(run, device)) as tables:
        _show_fronts(run, stages.search(run, tables, Terminal(), resume=resume), as_json)


@front_app.command("show", epilog="Example: hwnas front show examples/digits.toml")
@told
def front_show(config: Config, out: Out = None, device: Device = None, as_json: Json = False) -> None:
    """Show the front; of every device of the run, or of the one that is named."""
    run = run_of(read_config(config), out=out, device=device)
    fronts = {name: run.on(name).front() for name in asked(run, device)}
    if len(fronts) > 1:
        fronts["fleet"] = run.fleet_front()
    _show_fronts(run, fronts, as_json)


@front_app.command("pick", epilog="Example: hwnas front pick examples/digits.toml --max-latency-ms 0.3")
@told
def front_pick(
    config: Config,
    out: Out = None,
    device: Device = None,
    max_latency_ms: MaxLatency = None,
    min_accuracy: Annotated[float | None, typer.Option(min=0, max=1, help="Least accuracy, 0 to 1")] = None,
    as_json: Json = False,
) -> None:
    """Choose one point: the most accurate within a latency, the fastest of an accuracy, or else the knee."""
    front = run_of(read_config(config), out=out, device=device).front()
    if max_latency_ms is None and min_accuracy is None:
        point = front.knee()
    else:
        point = front.pick(max_latency_ms=max_latency_ms, min_accuracy=min_accuracy)
    answer(as_json, point.to_json())


@front_app.command("verify", epilog="Example: hwnas front verify examples/digits.toml")
@told
def front_verify(config: Config, out: Out = None, device: Device = None, as_json: Json = False) -> None:
    """Compile every candidate whole, measure it on the device, score it on the test split, and sort again."""
    run = run_of(read_config(config), out=out, device=device)
    fronts = {}
    for name in asked(run, device):
        own = run.on(name)
        with open_bench(own) as bench:
            table = open_table(own, bench)  # refused where it is of another device
            try:
                fronts[name] = stages.verify_front(own, bench, table, Terminal()).front
            finally:
                table.close()
    _show_fronts(run, fronts, as_json)


@front_app.command("export", epilog="Example: hwnas front export examples/digits.toml")
@told
def front_export(config: Config, out: Out = None, device: Device = None, as_json: Json = False) -> None:
    """Write every point of the verified front as a folder of loadable artefacts, each checked against the supernet."""
    run = run_of(read_config(config), out=out, device=device)
    exported = []
    for name in asked(run, device):
        own = run.on(name)
        with open_bench(own) as bench:
            exported += stages.export(own, bench, own.front(), Terminal())
    answer(as_json, {"exported": exported})


@app.command(epilog="Example: hwnas report examples/digits.toml")
@told
def report(config: Config, out: Out = None, device: Device = None, as_json: Json = False) -> None:
    """Write the report: one HTML file that needs nothing else; a file a device where the run has many."""
    run = run_of(read_config(config), out=out, device=device)
    written = []
    for name in asked(run, device):
        table = stages.table_of(own := run.on(name))
        try:
            written.append(str(stages.report(own, table)))
        finally:
            table.close()
    answer(as_json, {"report": written[0]} if len(written) == 1 else {"reports": written})


def _show_fronts(run: Run, fronts: Mapping[str, Front], as_json: bool) -> None:
    """A front as ever where there is one; by device, the fleet last, where there are many."""
    paths = {name: str(run.fleet_path if name == "fleet" else run.on(name).front_path) for name in fronts}
    if len(fronts) == 1:
        ((name, front),) = fronts.items()
        _show_front(front, as_json, {"front": paths[name]})
    elif as_json:
        said = {name: {**front.to_json(), "front": paths[name]} for name, front in fronts.items()}
        typer.echo(json.dumps({"fronts": said}))
    else:
        for name, front in fronts.items():
            typer.echo(f"{name}: {paths[name]}")
            _show_front(front, as_json, {})


def _show_front(front: Front, as_json: bool, more: dict[str, Any]) -> None:
    if as_json:
        typer.echo(json.dumps({**front.to_json(), **more}))
        return
    from hwnas.engine.report import front_table

    Console().print(front_table(front))


def main() -> None:
    """Entry point of the `hwnas` command."""
    app()
