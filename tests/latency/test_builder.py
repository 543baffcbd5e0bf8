from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.devices import DeviceError
from hwnas.latency import (
    Block,
    BuildError,
    Committed,
    Compiled,
    LatencyTable,
    Network,
    build,
    coverage,
)
from tests.latency.factories import conv, conv_block, two_convs
from tests.latency.toys import DEVICE, FINGERPRINT, PROTOCOL, ToyCompiler, ToyRunner

BLOCKS = [conv_block(channels) for channels in (1, 2, 3, 4, 5)]


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    return LatencyTable.open_for(tmp_path / "t.sqlite", DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)


def _build(table: LatencyTable, blocks: list[Block], **changes: object) -> object:
    tools = {"compiler": ToyCompiler(), "runner": ToyRunner(), "protocol": PROTOCOL, "chunk": 2, **changes}
    return build(table, blocks, **tools)  # type: ignore[arg-type]


def test_every_block_gets_its_own_latency(table: LatencyTable) -> None:
    _build(table, BLOCKS)
    assert table.latencies_ms() == {conv_block(c): float(c) for c in (1, 2, 3, 4, 5)}


def test_a_block_asked_for_twice_is_compiled_once(table: LatencyTable) -> None:
    compiler = ToyCompiler()
    _build(table, BLOCKS + BLOCKS, compiler=compiler)
    assert len(compiler.asked) == 5


def test_a_second_build_has_nothing_to_do(table: LatencyTable) -> None:
    _build(table, BLOCKS)
    compiler = ToyCompiler()
    report = build(table, BLOCKS, compiler=compiler, runner=ToyRunner(), protocol=PROTOCOL)
    assert compiler.asked == []
    assert (report.present, report.tried, report.added) == (5, 0, 0)


def test_what_does_not_compile_or_run_becomes_a_row_and_the_rest_goes_on(table: LatencyTable) -> None:
    compiler, runner = ToyCompiler(refuses=("channels=2",)), ToyRunner(refuses=("1-4-4-4",))
    report = build(table, BLOCKS, compiler=compiler, runner=runner, protocol=PROTOCOL, chunk=3)
    failures = table.failures()
    assert failures[conv_block(2)].startswith("did not compile: cannot compile test.conv(channels=2)")
    assert failures[conv_block(4)] == "did not run: 1-4-4-4.so hangs"
    assert set(table.latencies_ms()) == {conv_block(1), conv_block(3), conv_block(5)}
    assert (report.tried, report.failed, report.added) == (5, 2, 5)


def test_a_chunk_of_which_nothing_compiles_asks_nothing_of_the_device(table: LatencyTable) -> None:
    runner = ToyRunner()
    _build(table, BLOCKS[:1], compiler=ToyCompiler(refuses=("conv",)), runner=runner)
    assert runner.batches == []


def test_a_broken_compiler_does_not_fill_the_table_with_failures(table: LatencyTable) -> None:
    with pytest.raises(BuildError, match=r"all of the first 5 failed.*check the compiler"):
        _build(table, BLOCKS, compiler=ToyCompiler(refuses=("conv",)), chunk=8)
    assert table.missing(BLOCKS) == BLOCKS


def test_progress_is_told_a_chunk_at_a_time(table: LatencyTable) -> None:
    events: list[object] = []
    runner = ToyRunner()
    _build(table, BLOCKS, on_event=events.append, runner=runner, clock=lambda: float(len(runner.batches)))
    committed = [event for event in events if isinstance(event, Committed)]
    assert [(event.done, event.total) for event in committed] == [(2, 5), (4, 5), (5, 5)]
    assert committed[0].per_minute == 120.0
    assert committed[0].seconds_left == 1.5
    assert committed[-1].seconds_left == 0.0
    assert sum(isinstance(event, Compiled) for event in events) == 5


def test_an_unknown_factory_is_an_error_before_anything_is_compiled(table: LatencyTable) -> None:
    compiler = ToyCompiler()
    with pytest.raises(LookupError, match="no installed space has registered"):
        _build(table, [*BLOCKS, Block.of("test.unheard", (1, 1, 1, 1))], compiler=compiler)
    assert compiler.asked == []


def test_another_device_is_refused_before_anything_is_compiled(table: LatencyTable) -> None:
    compiler = ToyCompiler()
    with pytest.raises(DeviceError):
        _build(table, BLOCKS, compiler=compiler, runner=ToyRunner(state=replace(FINGERPRINT, soc="another")))
    assert compiler.asked == []


def test_a_chunk_of_nothing_is_refused(table: LatencyTable) -> None:
    with pytest.raises(ValueError, match="a chunk of 0 on 1 device"):
        _build(table, BLOCKS, chunk=0)


def test_coverage_is_known_before_and_after(table: LatencyTable) -> None:
    before = coverage(table, BLOCKS)
    assert (before.total, before.present, before.missing) == (5, 0, tuple(BLOCKS))
    assert before.estimated_minutes > 0
    _build(table, BLOCKS[:3], compiler=ToyCompiler(refuses=("channels=3",)))
    after = coverage(table, BLOCKS, workers=2)
    assert (after.total, after.present, after.failed, after.missing) == (5, 2, 1, tuple(BLOCKS[3:]))
    # 1.5 CPU-seconds over two workers and 4 runs of 1 and of 2 ms
    assert after.estimated_minutes == pytest.approx(2 * (1.5 / 2 + 0.006) / 60)


def test_later_visits_are_told_at_the_speed_of_the_first(table: LatencyTable) -> None:
    _build(table, BLOCKS[:3])
    _build(table, BLOCKS[3:], runner=ToyRunner(speed=1.25))
    assert table.latencies_ms() == {conv_block(c): pytest.approx(c) for c in (1, 2, 3, 4, 5)}
    assert table.measurement(conv_block(5)).runs_ms == (6.25,) * PROTOCOL.runs  # what was measured is kept
    assert [visit.speed for visit in table.visits()] == [None, 1.0, 1.25]
    assert [key for key, _ in table.visits()[-1].anchors] == [conv_block(1).key, conv_block(2).key]


def test_a_budget_leaves_the_lightest_blocks_for_another_day(table: LatencyTable) -> None:
    runner = ToyRunner()
    weights = {conv_block(c): float(c) for c in (1, 2, 3, 4, 5)}
    report = build(
        table,
        BLOCKS,
        compiler=ToyCompiler(),
        runner=runner,
        protocol=PROTOCOL,
        weights=weights,
        chunk=2,
        budget_minutes=1.5,
        clock=lambda: 60.0 * len(runner.batches),
    )
    assert (report.tried, report.left) == (4, 1)
    assert table.missing(BLOCKS) == [conv_block(1)]


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_a_budget_of_no_time_is_refused(table: LatencyTable, minutes: float) -> None:
    with pytest.raises(ValueError, match=f"budget of {minutes:g} minutes"):
        _build(table, BLOCKS, budget_minutes=minutes)


NETWORKS = [Network(f"net {c}", two_convs, ((1, c, 4, 4),), (conv_block(c), conv_block(c + 1))) for c in (1, 2, 3)]


def test_networks_are_measured_whole_and_once(table: LatencyTable) -> None:
    for _ in range(2):
        build(table, [], fit=NETWORKS, compiler=ToyCompiler(), runner=ToyRunner(), protocol=PROTOCOL, chunk=2)
    rows = table.networks("fit")
    assert [row.label for row in rows] == ["net 1", "net 2", "net 3"]
    assert [row.evidence.result.latency_ms for row in rows] == [1.0, 2.0, 3.0]  # type: ignore[union-attr]
    assert rows[0].blocks == (conv_block(1), conv_block(2))
    assert table.measured("fit")[1] == ((conv_block(2), conv_block(3)), 2.0)
    assert table.measured("check") == []


def test_a_network_that_fitted_cannot_check(table: LatencyTable) -> None:
    tools = {"compiler": ToyCompiler(), "runner": ToyRunner(), "protocol": PROTOCOL}
    build(table, [], fit=NETWORKS[:1], **tools)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'fit' network and cannot be 'check' too"):
        build(table, [], check=NETWORKS, **tools)  # type: ignore[arg-type]


def test_a_network_asked_for_in_both_roles_is_refused(table: LatencyTable) -> None:
    tools = {"compiler": ToyCompiler(), "runner": ToyRunner(), "protocol": PROTOCOL}
    with pytest.raises(ValueError, match="'fit' network and cannot be 'check' too"):
        build(table, [], fit=NETWORKS[:2], check=NETWORKS[1:], **tools)  # type: ignore[arg-type]
    assert table.networks() == []


def test_the_recipe_of_a_block_is_its_factory() -> None:
    made = conv_block(3).recipe()()
    assert [p.shape for p in made.parameters()] == [p.shape for p in conv(channels=3).parameters()]
