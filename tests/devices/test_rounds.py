"""The protocol on a device whose speed is known, because it is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from hwnas.devices import Measurement, Protocol, RunFailure
from hwnas.devices.drift import FEWEST
from hwnas.devices.rounds import Answers, time_in_rounds

PROTOCOL = Protocol(rounds=12, repeats=5, burn_in=0, cool_down_s=0)


class Computed:
    """Artefact i takes truth[i] ms times the speed of the round, with a spread of its own."""

    def __init__(self, n: int, speed: Callable[[int], float] = lambda _: 1.0, spread: Sequence[float] = ()) -> None:
        self.truth = np.random.default_rng(n).uniform(0.01, 2, n)
        self.spread = list(spread) or [0.01] * n
        self.speed = speed
        self.orders: list[list[int]] = []
        self.refuses: set[int] = set()
        self._rng = np.random.default_rng(0)

    def __call__(self, order: Sequence[int]) -> Answers:
        speed = self.speed(len(self.orders))
        self.orders.append(list(order))
        return {
            i: RunFailure(f"{i} does not run")
            if i in self.refuses
            else (self.truth[i] * speed * self._rng.lognormal(0, self.spread[i], PROTOCOL.repeats)).tolist()
            for i in order
        }

    def time(self, protocol: Protocol, sleep: Callable[[float], None] = lambda _: None) -> list[Measurement]:
        timed = time_in_rounds(len(self.truth), protocol, self, "now", sleep=sleep)
        assert all(isinstance(m, Measurement) for m in timed)
        return [m for m in timed if isinstance(m, Measurement)]


def test_latencies_of_one_batch_keep_their_ratios() -> None:
    # a device that is slow for more than half of some artefacts' rounds would put their plain medians wrong
    device = Computed(20, speed=lambda n: 1.4 if n % 2 else 1.0)
    found = np.array([m.latency_ms for m in device.time(PROTOCOL)])
    assert np.allclose(found / found[0], device.truth / device.truth[0], rtol=0.02)


def test_raw_runs_keep_the_drift_that_is_divided_out() -> None:
    device = Computed(FEWEST, speed=lambda n: 1.4 if n >= 6 else 1.0)
    for measured in device.time(PROTOCOL):
        runs = np.array(measured.runs_ms).reshape(12, 5)
        assert np.median(runs[6:]) / np.median(runs[:6]) == pytest.approx(1.4, rel=0.05)
        assert measured.drift[-1] / measured.drift[0] == pytest.approx(1.4, rel=0.03)


def test_a_small_batch_has_no_drift_to_tell_from_noise() -> None:
    assert [m.drift for m in Computed(FEWEST - 1).time(PROTOCOL)] == [()] * (FEWEST - 1)


def test_only_what_is_vague_is_measured_longer_and_never_without_end() -> None:
    device = Computed(20, spread=[0.4, 0.4] + [0.005] * 18)
    noisy, also, *rest = device.time(replace(PROTOCOL, max_rounds=40, precision=0.02))
    assert len(noisy.runs_ms) == len(also.runs_ms) == 40 * 5
    assert np.mean([len(m.runs_ms) for m in rest]) < 30 * 5
    assert all(len(order) >= FEWEST for order in device.orders)  # or the drift of the round would not be known


def test_a_wider_interval_is_enough_where_it_is_asked_for() -> None:
    precise = Computed(10, spread=[0.1] * 10).time(replace(PROTOCOL, max_rounds=60, precision=0.01))
    rough = Computed(10, spread=[0.1] * 10).time(replace(PROTOCOL, max_rounds=60, precision=0.1))
    assert {len(m.runs_ms) for m in rough} == {12 * 5}
    assert max(m.relative_ci() for m in precise) < min(m.relative_ci() for m in rough)


def test_a_cold_device_is_warmed_up_and_those_runs_are_not_kept() -> None:
    device = Computed(10, speed=lambda n: (2.0, 1.5, 1.2, 1.0)[min(n, 3)])
    measured = device.time(replace(PROTOCOL, burn_in=8))
    assert len(device.orders) == 5 + 12  # the fifth agrees with the fourth
    assert np.allclose([m.latency_ms for m in measured], device.truth, rtol=0.03)


def test_a_device_that_throttles_may_cool() -> None:
    rests: list[float] = []
    device = Computed(10, speed=lambda n: 1.3 if n >= 4 and not rests else 1.0)
    device.time(replace(PROTOCOL, cool_down_s=7.0), sleep=rests.append)
    assert rests == [7.0]


def test_a_device_that_stays_slow_is_not_waited_for_for_ever() -> None:
    rests: list[float] = []
    Computed(10, speed=lambda n: 1.3 if n >= 4 else 1.0).time(replace(PROTOCOL, cool_down_s=7.0), sleep=rests.append)
    assert len(rests) == 3


def test_a_failure_is_the_artefacts_alone_and_is_not_tried_again() -> None:
    device = Computed(10)
    device.refuses = {4}
    timed = time_in_rounds(10, PROTOCOL, device, "now")
    assert [i for i, result in enumerate(timed) if isinstance(result, RunFailure)] == [4]
    assert sum(4 in order for order in device.orders) == 1


def test_every_round_has_an_order_of_its_own() -> None:
    device = Computed(10)
    device.time(PROTOCOL)
    assert len({tuple(order) for order in device.orders}) == 12
    assert all(sorted(order) == list(range(10)) for order in device.orders)
