from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwnas.devices import Measurement, Protocol
from hwnas.engine.architecture import BoolArray
from hwnas.engine.front import Front, FrontPoint
from hwnas.engine.hardware import Visit
from hwnas.engine.measured import Answers, judged, long_enough, paired_error, reading
from hwnas.engine.objective import Quantity

PROTOCOL = Protocol(rounds=100, repeats=5)
LATENCY, TAIL = Quantity("latency_ms"), Quantity("latency_ms", None, 99)


def timed(latency_ms: float, rng: np.random.Generator, *, spread: float = 0.05, runs: int = 500) -> Measurement:
    drawn = latency_ms * rng.lognormal(0, spread, runs)
    return Measurement(tuple(drawn.tolist()), PROTOCOL, "2026-01-01T00:00:00+00:00")


def point(number: int, latency_ms: float, accuracy: float) -> FrontPoint:
    return FrontPoint(
        architecture=(number,),
        genes={"depth": number},
        accuracy_validation=accuracy,
        accuracy_test=accuracy,
        latency_predicted_ms=latency_ms,
        latency_std_ms=0.1,
        latency_ms=latency_ms,
        macs=1000,
        params=10,
        weight_bytes=3 * 2**20,
        peak_memory_bytes=2**20,
        verified=True,
    )


# ---- readings -------------------------------------------------------------------------------------------------------


def test_a_latency_is_read_at_the_speed_that_the_device_had_for_its_table() -> None:
    rng = np.random.default_rng(0)
    anchors = tuple((timed(1.5 * ms, rng), timed(ms, rng)) for ms in (1.0, 2.0, 3.0))
    seen = Visit((), anchors)
    assert seen.speed == pytest.approx(1.5, rel=0.02)
    found = reading(LATENCY, point(0, 6.0, 0.9), timed(6.0, rng), seen)
    assert found is not None
    assert found.value == pytest.approx(4.0, rel=0.02)


def test_a_table_that_was_rescaled_is_read_at_its_new_speed() -> None:
    rng = np.random.default_rng(0)
    anchors = tuple((timed(1.5 * ms, rng), timed(ms, rng)) for ms in (1.0, 2.0, 3.0))
    assert Visit((), anchors, scale=1.5).speed == pytest.approx(1.0, rel=0.02)


def test_another_measurement_stays_below_the_upper_bound_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    kept = total = 0
    for _ in range(200):
        # each visit loads every network anew: 2 % of luck that its runs do not show
        networks = np.array([1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0])
        then, now, later = (networks * rng.lognormal(0, 0.02, 8) for _ in range(3))
        seen = Visit((), tuple((timed(a, rng), timed(b, rng)) for a, b in zip(now[1:], then[1:], strict=True)))
        found = reading(TAIL, point(0, 1.0, 0.9), timed(now[0], rng), seen)
        again = reading(TAIL, point(0, 1.0, 0.9), timed(later[0], rng), Visit(()))
        assert found is not None
        assert again is not None
        kept, total = kept + (again.value <= found.upper(0.95)), total + 1
    assert 0.9 <= kept / total <= 1.0


def test_without_the_luck_of_a_visit_the_bound_would_be_too_low() -> None:
    rng = np.random.default_rng(1)
    alone = reading(LATENCY, point(0, 1.0, 0.9), timed(1.0, rng), Visit(()))
    anchors = tuple((timed(ms * rng.lognormal(0, 0.05), rng), timed(ms, rng)) for ms in (1.0, 2.0, 3.0, 4.0))
    among = reading(LATENCY, point(0, 1.0, 0.9), timed(1.0, rng), Visit((), anchors))
    assert alone is not None
    assert among is not None
    assert among.relative_error > 3 * alone.relative_error


def test_a_model_answers_once_and_has_no_error() -> None:
    once = Measurement((2.5,), PROTOCOL, "2026-01-01T00:00:00+00:00", energy_mj=0.7)
    for quantity, value in ((LATENCY, 2.5), (TAIL, 2.5), (Quantity("energy_mj"), 0.7)):
        found = reading(quantity, point(0, 2.5, 0.9), once, Visit(()))
        assert found is not None
        assert (found.value, found.upper(0.99)) == (value, value)


def test_memory_is_that_of_the_compiled_network() -> None:
    once = Measurement((2.5,), PROTOCOL, "2026-01-01T00:00:00+00:00")
    found = reading(Quantity("peak_memory_mib"), point(0, 2.5, 0.9), once, Visit(()))
    assert found is not None
    assert found.value == 4.0


def test_what_no_measurement_tells_has_no_reading() -> None:
    once = Measurement((2.5,), PROTOCOL, "2026-01-01T00:00:00+00:00")
    assert reading(Quantity("macs"), point(0, 2.5, 0.9), once, Visit(())) is None
    assert reading(Quantity("energy_mj"), point(0, 2.5, 0.9), once, Visit(())) is None


@pytest.mark.parametrize(("percentile", "runs"), [(None, 10), (90, 50), (99, 500)])
def test_a_percentile_that_is_checked_is_measured_long_enough(percentile: int | None, runs: int) -> None:
    protocol = long_enough(Protocol(rounds=2, repeats=5), [Quantity("latency_ms", None, percentile)])
    assert protocol.runs == runs


# ---- differences ----------------------------------------------------------------------------------------------------


@given(
    st.tuples(st.integers(2, 5), st.integers(2, 40)).flatmap(lambda shape: arrays(np.bool_, shape)),
)
def test_the_error_of_a_difference_is_that_of_mcnemar(right: BoolArray) -> None:
    found = paired_error(list(right))
    images = right.shape[1]
    for i, a in enumerate(right):
        for j, b in enumerate(right):
            only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
            gain = (only_a - only_b) / images
            obvious = np.sqrt(max((only_a + only_b + 1) / images - gain**2, 0) / images)
            assert found[i, j] == pytest.approx(obvious, abs=1e-12)


def front_of(*points: FrontPoint) -> Front:
    return Front.of(points, provenance={"objectives": ["accuracy", "latency_ms"]})


def answers(*points: FrontPoint, images: int = 100) -> Answers:
    rng = np.random.default_rng(0)
    right = {p.architecture: np.arange(images) < round(p.known_accuracy * images) for p in points}
    runs = {p.architecture: timed(p.known_latency_ms, rng, spread=0.1, runs=100) for p in points}
    return Answers(right, runs)


def test_a_tenth_of_a_millisecond_inside_the_noise_makes_no_point_of_a_verified_front() -> None:
    slow, barely_faster, fast = point(0, 5.0, 0.80), point(1, 4.9, 0.70), point(2, 2.0, 0.60)
    front = front_of(slow, barely_faster, fast)
    assert len(front.points) == 3
    found = judged(front, answers(slow, barely_faster, fast), confidence=0.95, other_images=False)
    assert found.points == (fast, slow)
    assert found.dominated == (barely_faster,)


def test_points_that_only_noise_tells_apart_are_named() -> None:
    a, b, c = point(0, 4.9, 0.80), point(1, 5.0, 0.81), point(2, 9.0, 0.99)
    found = judged(front_of(a, b, c), answers(a, b, c), confidence=0.95, other_images=True)
    assert found.tied == ((1, 2),)
    assert [p.architecture for p in found.points] == [(0,), (1,), (2,)]


def test_another_draw_of_images_would_have_to_show_the_difference_too_where_that_is_asked() -> None:
    fast, slow = point(0, 4.0, 0.80), point(1, 8.0, 0.81)
    front, known = front_of(fast, slow), answers(fast, slow)
    assert judged(front, known, confidence=0.95, other_images=False).points == (fast, slow)
    assert judged(front, known, confidence=0.95, other_images=True).points == (fast,)


def test_what_differs_from_visit_to_visit_is_noise_too() -> None:
    slow, faster = point(0, 5.0, 0.80), point(1, 4.6, 0.70)
    known = answers(slow, faster)
    front = front_of(slow, faster)
    assert len(judged(front, known, confidence=0.95, other_images=False).points) == 2
    unsteady = replace(known, between=0.1)
    assert judged(front, unsteady, confidence=0.95, other_images=False).points == (slow,)
