"""A device that has moved since its table was measured is found out; one that has not is left in peace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.devices import DeviceError, Measurement, Protocol, RunFailure
from hwnas.devices.rounds import Answers, time_in_rounds
from hwnas.latency import Drift, DriftError, LatencyTable, accept, build, refuse_moved
from hwnas.latency import check_drift as checked
from hwnas.latency.sentinels import LOOKS, SENTINELS, common_factor
from tests.latency.factories import conv_block
from tests.latency.toys import DEVICE, FINGERPRINT, MEASURED_AT, ToyCompiler, ToyRunner

BLOCKS = [conv_block(channels) for channels in range(1, 25)]
Library = Callable[[str], Path | None]
PROTOCOL = Protocol(rounds=10, repeats=5, burn_in=1, cool_down_s=0)


@dataclass
class Noisy(ToyRunner):
    """Runs spread by 3 %, rounds by 2 % and each visit by 1 %, times `slowdown` of an artefact's channels."""

    seed: int = 0
    slowdown: Callable[[int], float] = lambda _: 1.0
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
        visit = self.rng.lognormal(0, 0.01)
        channels = [int(path.stem.split("-")[1]) for path in artefacts]
        truth = [n * self.slowdown(n) for n in channels]

        def one_round(order: Sequence[int]) -> Answers:
            speed = visit * self.rng.lognormal(0, 0.02)
            return {i: (truth[i] * speed * self.rng.lognormal(0, 0.03, protocol.repeats)).tolist() for i in order}

        return time_in_rounds(len(artefacts), protocol, one_round, MEASURED_AT)


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    table = LatencyTable.open_for(tmp_path / "t.sqlite", DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    build(table, BLOCKS, compiler=ToyCompiler(), runner=Noisy(), protocol=PROTOCOL)
    return table


LIBRARY = ToyCompiler().library


def check_drift(table: LatencyTable, runner: ToyRunner, library: Library, protocol: Protocol) -> Drift:
    return checked(table, runner, library, protocol, sleep=lambda _: None)


def test_an_unchanged_device_is_not_suspected_twenty_times_out_of_twenty(table: LatencyTable) -> None:
    found = [check_drift(table, Noisy(seed=seed), LIBRARY, PROTOCOL) for seed in range(1, 21)]
    assert [drift.check.verdict for drift in found] == ["unchanged"] * 20
    assert all(drift.check.sentinels == SENTINELS for drift in found)
    assert {drift.looks for drift in found} == {1}


@pytest.mark.parametrize("factor", [0.8, 1.15, 1.5, 3.0])
def test_a_device_that_moved_is_found_and_by_how_much(table: LatencyTable, factor: float) -> None:
    for seed in range(1, 6):
        drift = check_drift(table, Noisy(seed=seed, slowdown=lambda _: factor), LIBRARY, PROTOCOL)
        assert drift.moved
        assert drift.common
        assert drift.check.speed == pytest.approx(factor, rel=0.05)
        assert drift.check.low < drift.check.speed < drift.check.high
        assert drift.looks == LOOKS


def test_a_device_that_is_slow_for_a_while_is_waited_for(table: LatencyTable) -> None:
    pauses: list[float] = []
    slow = Noisy(seed=7, slowdown=lambda _: 1.4 if len(pauses) < 3 else 1.0)
    drift = checked(table, slow, LIBRARY, PROTOCOL, patience_s=90, sleep=pauses.append)
    assert not drift.moved
    assert drift.looks == 4
    assert pauses == [10.0] * 3


def test_a_table_whose_device_moved_is_refused_until_it_moves_back(table: LatencyTable) -> None:
    refuse_moved(table)
    table.note_check(check_drift(table, Noisy(seed=1, slowdown=lambda _: 1.5), LIBRARY, PROTOCOL).check)
    with pytest.raises(DriftError, match=r"takes 1\.[45]\d times as long as its table says.*--rescale"):
        refuse_moved(table)
    table.note_check(check_drift(table, Noisy(seed=2), LIBRARY, PROTOCOL).check)
    refuse_moved(table)


def test_an_accepted_change_rescales_the_table_and_is_no_change_afterwards(table: LatencyTable) -> None:
    before = table.latencies_ms()
    slow = Noisy(seed=3, slowdown=lambda _: 1.5)
    drift = check_drift(table, slow, LIBRARY, PROTOCOL)
    table.note_check(drift.check)
    accept(table, drift)
    refuse_moved(table)
    after = table.latencies_ms()
    assert [after[block] / before[block] for block in BLOCKS] == pytest.approx([drift.check.speed] * len(BLOCKS))
    assert table.measurement(BLOCKS[0]).latency_ms == before[BLOCKS[0]]  # what was measured stays
    again = check_drift(table, slow, LIBRARY, PROTOCOL)
    assert not again.moved
    assert again.check.speed == pytest.approx(1.5, rel=0.05)  # relative to the first visit, as the one before


def test_blocks_that_moved_apart_cannot_be_rescaled(table: LatencyTable) -> None:
    odd = Noisy(seed=4, slowdown=lambda channels: 2.0 if channels % 2 else 0.7)
    drift = check_drift(table, odd, LIBRARY, PROTOCOL)
    assert drift.moved
    assert not drift.common
    with pytest.raises(DriftError, match=r"different factors.*build a new table"):
        accept(table, drift)
    assert table.scale == 1.0


def test_a_device_that_swings_by_itself_is_allowed_its_swing(tmp_path: Path) -> None:
    @dataclass
    class Swinging(Noisy):
        def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
            found = super().time(artefacts, protocol)
            factors = tuple(1.2 if n % 2 else 0.85 for n in range(protocol.rounds))
            runs = np.repeat(factors, protocol.repeats)
            return [
                replace(m, runs_ms=tuple(np.array(m.runs_ms) * runs), drift=factors)
                for m in found
                if isinstance(m, Measurement)
            ]

    table = LatencyTable.open_for(tmp_path / "s.sqlite", DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    build(table, BLOCKS, compiler=ToyCompiler(), runner=Swinging(), protocol=PROTOCOL)
    inside = check_drift(table, Noisy(seed=5, slowdown=lambda _: 1.12), LIBRARY, PROTOCOL)
    assert inside.allowed == pytest.approx(0.175, abs=0.01)
    assert not inside.moved
    assert check_drift(table, Noisy(seed=6, slowdown=lambda _: 1.4), LIBRARY, PROTOCOL).moved


def test_a_check_without_artefacts_says_what_it_needs(table: LatencyTable) -> None:
    with pytest.raises(DriftError, match=r"0 of the first artefacts.*cache folder"):
        check_drift(table, Noisy(), lambda _: None, PROTOCOL)


def test_another_device_is_not_checked(table: LatencyTable) -> None:
    stranger = Noisy(state=replace(FINGERPRINT, soc="another"))
    with pytest.raises(DeviceError, match="soc 'toy' there, 'another' here"):
        check_drift(table, stranger, LIBRARY, PROTOCOL)


def test_the_interval_of_a_common_factor_covers_it() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        _, low, high = common_factor(1.3 * rng.lognormal(0, 0.05, SENTINELS))
        inside += low <= 1.3 <= high
    # a MAD of twelve numbers wavers, so the interval is not exact
    assert 0.88 <= inside / 400 <= 0.99
