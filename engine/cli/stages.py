"""The stages of a run with their progress shown: what the commands and the demonstration are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture
from hwnas.engine.candidates import columns_of, fleet_front, front_of, gap_of, part, search_run
from hwnas.engine.cli.terminal import Terminal
from hwnas.engine.config import ConfigError
from hwnas.engine.deploy import export_front, report_data
from hwnas.engine.front import Front
from hwnas.engine.hardware import (
    Bench,
    build_table,
    correction_networks,
    latency_of,
    open_bench,
    open_table,
    table_coverage,
    table_quality,
)
from hwnas.engine.problem import problems_of
from hwnas.engine.ranking import FEWEST
from hwnas.engine.report import write_report
from hwnas.engine.run import Run
from hwnas.engine.search import Evaluated
from hwnas.engine.supernet_health import supernet_health
from hwnas.engine.training import checkpoint as checkpoints
from hwnas.engine.training.checkpoint import EpochRecord
from hwnas.engine.verify import Verified, verify, write_measurements
from hwnas.latency import Compiled, LatencyTable, PredictionQuality, refuse_moved
from hwnas.latency.builder import Event


def train(run: Run, terminal: Terminal) -> tuple[EpochRecord, ...]:
    """Train the supernet, or what is left of it."""
    epochs = run.config.training.epochs
    if epochs == 0:
        terminal.say("supernet: used with the weights that it begins with")
        return ()
    before = checkpoints.load(run.supernet_folder)
    if before is not None and before.epoch >= epochs:
        history = run.trainer().run()
        terminal.say(f"supernet: reused the checkpoint of {before.epoch} epochs in {run.supernet_folder}")
        return history
    sizes = ", ".join(f"{n} {name}" for name, n in run.data.sizes.items())
    terminal.say(f"supernet: {arch.size(run.space.genes):,} subnets; {run.data.name} images: {sizes}")
    if before is not None:
        terminal.say(f"supernet: going on after epoch {before.epoch} of {epochs}")
    with terminal.bar("training", total=epochs) as bar:
        seen = ""

        def show(record: EpochRecord) -> None:
            nonlocal seen
            if record.accuracy_largest is not None:
                figures = (record.accuracy_largest, record.accuracy_smallest, record.accuracy_random)
                seen = "largest {:.3f} smallest {:.3f} random {:.3f}".format(*figures)
            bar.update(record.epoch, epochs, f"loss {record.loss:.3f} {seen}")

        history = run.train(show)
    last = history[-1]
    terminal.say(
        f"supernet: validation accuracy of the largest {last.accuracy_largest:.3f}, "
        f"the smallest {last.accuracy_smallest:.3f}, a random one {last.accuracy_random:.3f}"
    )
    return history


def diagnose(run: Run, terminal: Terminal, *, architectures: int, pairs: int, standalone: int) -> dict[str, Any]:
    """Say what the supernet's scores depend on."""
    if 0 < standalone < FEWEST:
        raise ConfigError(
            f"--standalone {standalone}: fewer than {FEWEST} networks have no order: give {FEWEST} or more"
        )
    found = supernet_health(
        run, architectures=architectures, pairs=pairs, standalone=standalone, seed=run.config.run.seed
    )
    low, high = found["accuracy"]["lowest"], found["accuracy"]["highest"]
    terminal.say(f"scores:       {found['architectures']} subnets with inherited weights, {low:.3f} to {high:.3f}")
    if found["recency"] is not None:
        terminal.say(f"recency:      {found['recency']:+.2f} (scores with nearness to the last trained; well near 0)")
    drift = found["batchnorm_drift"]
    if drift["mean"] is not None:
        terminal.say(
            f"BatchNorm:    inherited means are off by {drift['mean']:.2f} deviations, deviations by a factor of "
            f"{np.exp(drift['scale']):.2f}: what recalibration removes"
        )
    cosines = "  ".join(f"{distance}: {cosine:+.2f}" for distance, cosine in found["cosine_by_distance"].items())
    terminal.say(f"interference: cosine of gradients on shared weights, by genes that differ:  {cosines}")
    if found["standalone"] is not None:
        for name in ("inherited", "params", "macs", "random"):
            tau, low, high = found["standalone"][name]["kendall"]
            terminal.say(f"truth:        Kendall's tau of {name} {tau:+.2f} ({low:+.2f} to {high:+.2f})")
    return found


def build(run: Run, bench: Bench, terminal: Terminal) -> LatencyTable:
    """Build the latency table, or what is missing of it."""
    table = open_table(run, bench)
    cover = table_coverage(run, table)
    fit, check = correction_networks(run)
    networks = len(fit) + len(check)
    if not cover.missing and len(table.networks()) >= networks:
        terminal.say(f"table: reused {cover.present} blocks and {networks} networks in {table.database}")
    else:
        terminal.say(
            f"table: {cover.total} blocks on {bench.device.name} ({bench.fingerprint.soc}), {cover.present} present, "
            f"{len(cover.missing)} to measure in about {cover.estimated_minutes:.1f} minutes, then {networks} networks"
        )
        total = len(cover.missing) + networks - len(table.networks())
        done = failed = 0
        with terminal.bar("building", total=total) as bar:

            def show(event: Event) -> None:
                nonlocal done, failed
                if isinstance(event, Compiled):
                    done, failed = done + 1, failed + (event.error is not None)
                    bar.update(done, total, f"compiled, {failed} failed; to be measured")
                else:
                    rate = f"{event.per_minute:.0f} a minute, {event.seconds_left / 60:.1f} minutes left"
                    bar.update(event.done, event.total, f"measured, {event.failed} failed, {rate}")

            report = build_table(run, bench, table, show)
        for reason in report.gone:
            terminal.say(f"table: a board was left out: {reason}", style="yellow")
        if report.left:
            terminal.say(
                f"table: the time is up with {report.left} to measure: run the same command again for the rest"
            )
    for block, reason in list(table.failures().items())[:3]:
        terminal.say(f"table: {block} failed, its architectures are infeasible here: {reason}", style="yellow")
    found = table_quality(run, table)
    if found is not None:
        terminal.say(f"table: {quality_line(found)}")
    if table.modelled:
        terminal.say(f"table: {table.fingerprint.soc} is a model, nothing here was measured", style="yellow")
    return table


def quality_line(found: PredictionQuality) -> str:
    """How wrong the prediction is, in a line."""
    floor = "" if found.noise_floor is None else f", noise floor {found.noise_floor:.1%}"
    ranks = "" if found.kendall is None else f", Kendall tau {found.kendall:.2f}"
    return (
        f"prediction of {found.n} networks it was not fitted on: MAPE {found.mape:.1%}{ranks}, "
        f"{found.within_10_percent:.0%} within 10 %{floor}"
    )


def search(run: Run, tables: Sequence[LatencyTable], terminal: Terminal, *, resume: bool = False) -> dict[str, Front]:
    """Search for the devices of these tables at once, and write the predicted front of each and of all; by name.

    The run's own device comes first, "fleet" last where there are several. Raises DriftError for a table whose device
    has moved.
    """
    for table in tables:
        _fill(run, table, terminal)
    problems = problems_of(run, [latency_of(run, table) for table in tables])
    total = run.config.search.evaluations
    known = run.journal.count()
    if known:
        terminal.say(f"search: {known} evaluations are known already and are not computed again")
    with ExitStack() as stack:
        for problem in problems:
            problem.check()  # before any bar
        bar = stack.enter_context(terminal.bar("searching", total=total))

        def show(evaluated: Evaluated) -> None:
            bar.update(len(evaluated), total, _note(evaluated))

        evaluated = search_run(run, problems, show, resume=resume)
        bar.update(len(evaluated), len(evaluated), _note(evaluated))
    keys, fronts = columns_of(problems), dict[str, Front]()
    for problem in problems:
        front = front_of(run, problem, part(evaluated, problem, keys))
        run.on(problem.device).write_front(front)
        fronts[problem.device] = front
        where = f" of {problem.device}" if len(problems) > 1 else ""
        terminal.say(f"search: {len(evaluated)} subnets evaluated, {len(front.points)} on the predicted front{where}")
        if (gap := gap_of(problem, part(evaluated, problem, keys))) is not None:
            terminal.say(
                f"search: what was found has {gap.share:.1%} of the hypervolume of the exact front of an additive "
                f"surrogate{where} (Kendall tau {gap.agreement:.2f} on evaluations left out of its fit)"
            )
    if len(problems) > 1:
        fronts["fleet"] = fleet_front(run, problems, evaluated)
        fronts["fleet"].write(run.fleet_path)
        terminal.say(f"search: {len(fronts['fleet'].points)} on the front of the whole fleet")
    return fronts


def _fill(run: Run, table: LatencyTable, terminal: Terminal) -> None:
    """Measure blocks that are missing, or say that they are estimated."""
    refuse_moved(table)
    missing = table.missing(arch.every_block(run.space))
    if missing and run.config.table.miss == "measure":
        terminal.say(f"table: {len(missing)} blocks of {table.device.name} are missing and are measured now")
        with open_bench(run, table.device.name) as bench:
            build(run, bench, terminal).close()
    elif missing and run.config.table.miss == "estimate":
        terminal.say(f"table: {len(missing)} blocks were never measured and are estimated", style="yellow")


def _note(evaluated: Evaluated) -> str:
    if np.isnan(evaluated.feasible.costs).any():
        return ""
    front = len(evaluated.layers()[0]) if len(evaluated.feasible) else 0
    return f"{front} on the front"


def verify_front(run: Run, bench: Bench, table: LatencyTable, terminal: Terminal) -> Verified:
    """Measure the front again on the device, and write what was measured."""
    before = run.front()
    total = min(len(before.points) + len(before.dominated), run.config.verify.candidates)
    with terminal.bar("verifying", total=total) as bar:
        verified = verify(run, bench, table, before, lambda done, all_: bar.update(done, all_, "compiled whole"))
    write_measurements(run, verified)
    run.write_front(verified.front)
    for entry in verified.rejected:
        terminal.say(f"verify: {list(entry.architecture)} is out: {entry.reason}", style="yellow")
    points = verified.front.points
    speed = verified.front.provenance["speed_since_table"]
    if speed is not None and abs(speed - 1) > 0.1:
        how = f"{speed - 1:.0%} slower" if speed > 1 else f"{1 - speed:.0%} faster"
        terminal.say(f"verify: the device is {how} than when its table was built; measured latencies are of now")
    replaced = verified.front.provenance["replacements"]
    if not replaced["still"]:
        terminal.say(
            f"verify: candidates still broke a limit after {replaced['visits']} further visits: points of the front "
            "keep it, but others may have been missed; allow more by [verify] replacements",
            style="yellow",
        )
    fastest, slowest = points[0].known_latency_ms, points[-1].known_latency_ms
    terminal.say(
        f"verify: {len(points)} of {verified.front.provenance['measured']} measured candidates are on the front, "
        f"{fastest:.3f} to {slowest:.3f} ms (a factor of {slowest / fastest:.1f})"
    )
    return verified


def table_of(run: Run) -> LatencyTable:
    """The latency table of the run's first device, to read. Raises TableError, DeviceError."""
    return LatencyTable.open(run.table_path, device=run.config.device.name)


@contextmanager
def tables_of(run: Run, devices: Sequence[str]) -> Iterator[list[LatencyTable]]:
    """The latency tables of these devices of the run, to read. Raises TableError, DeviceError."""
    with ExitStack() as stack:
        tables = []
        for name in devices:
            tables.append(table_of(run.on(name)))
            stack.callback(tables[-1].close)
        yield tables


def quality_json(found: PredictionQuality) -> dict[str, Any]:
    """The figures by name."""
    return asdict(found)


def export(
    run: Run, bench: Bench, front: Front, terminal: Terminal, *, libraries: Mapping[Architecture, Path] | None = None
) -> list[str]:
    """Export every point of a verified front; the folders."""
    with terminal.bar("exporting", total=len(front.points)) as bar:
        records = export_front(run, bench, front, libraries=libraries, on_exported=bar.update)
    worst = max(max(record.parity.values()) for record in records)
    terminal.say(f"export: {len(records)} points, every artefact within {worst:.1g} of the supernet's output")
    return [str(record.folder) for record in records]


def report(run: Run, table: LatencyTable) -> Path:
    """Write the report; its path."""
    write_report(report_data(run, table, commands=commands(run)), run.report_path)
    return run.report_path


def commands(run: Run) -> tuple[str, ...]:
    """What makes the run again."""
    config = run.folder / "config.toml"
    stages = ("train", "table build", "search", "front verify", "front export", "report")
    return tuple(f"hwnas {stage} {config}" for stage in stages)
