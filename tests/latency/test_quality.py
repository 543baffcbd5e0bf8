from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.devices import Measurement, Protocol
from hwnas.latency import PredictionQuality, split_noise_floor

TWO_ROUNDS = Protocol(rounds=2, repeats=3)


def test_perfect_predictions_have_no_error() -> None:
    quality = PredictionQuality.of([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (quality.mape, quality.mape_low, quality.mape_high, quality.bias) == (0.0, 0.0, 0.0, 0.0)
    assert (quality.spearman, quality.kendall) == (1.0, 1.0)
    assert (quality.within_5_percent, quality.within_10_percent) == (1.0, 1.0)


def test_too_slow_a_prediction_is_a_positive_bias() -> None:
    quality = PredictionQuality.of([1.2, 2.2, 2.7], [1.0, 2.0, 3.0])
    assert quality.mape == pytest.approx(0.4 / 3)
    assert quality.bias == pytest.approx(0.2 / 3)


def test_shares_count_networks_within_a_bound() -> None:
    quality = PredictionQuality.of([104.0, 108.0, 120.0, 97.0], [100.0] * 4)
    assert (quality.within_5_percent, quality.within_10_percent) == (0.5, 0.75)


def test_root_mean_squares_punish_the_one_that_is_far_off() -> None:
    quality = PredictionQuality.of([1.0, 2.0, 4.0, 6.0], [1.0, 2.0, 4.0, 4.0])
    assert quality.rmse_ms == pytest.approx(1.0)
    assert quality.rmse == pytest.approx(0.25)


def test_coverage_counts_networks_inside_their_intervals() -> None:
    predicted, measured = [10.0, 10.0, 10.0, 10.0], [10.5, 11.9, 12.1, 7.0]
    quality = PredictionQuality.of(predicted, measured, std_ms=[1.0] * 4, nominal=0.9545)  # two deviations
    assert (quality.coverage, quality.nominal) == (0.5, 0.9545)
    given = PredictionQuality.of(predicted, measured, interval_ms=([7.0] * 4, [12.0] * 4), nominal=0.8)
    assert (given.coverage, given.nominal) == (0.75, 0.8)
    assert PredictionQuality.of(predicted, measured).coverage is None


def test_an_interval_for_each_network_is_asked_for() -> None:
    with pytest.raises(ValueError, match="give one a network"):
        PredictionQuality.of([1.0, 2.0], [1.0, 2.0], interval_ms=([1.0], [2.0]))


def test_ranks_of_two_networks_say_nothing() -> None:
    quality = PredictionQuality.of([1.0, 2.0], [2.0, 1.0])
    assert (quality.spearman, quality.kendall) == (None, None)


def test_ranks_of_equal_latencies_say_nothing() -> None:
    assert PredictionQuality.of([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]).kendall is None


def test_the_interval_holds_the_error_and_does_not_change() -> None:
    rng = np.random.default_rng(0)
    measured = rng.uniform(1, 10, 40)
    predicted = measured * rng.normal(1, 0.1, 40)
    quality = PredictionQuality.of(predicted, measured)
    assert quality.mape_low < quality.mape < quality.mape_high
    assert PredictionQuality.of(predicted, measured) == quality


@pytest.mark.parametrize(
    ("predicted", "measured", "told"),
    [
        ([1.0], [1.0, 2.0], "one number a network"),
        ([], [], "one number a network"),
        ([1.0], [0.0], "must be positive"),
        ([float("nan")], [1.0], "predictions finite"),
    ],
)
def test_figures_of_nonsense_are_refused(predicted: list[float], measured: list[float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        PredictionQuality.of(predicted, measured)


def test_the_noise_floor_compares_halves_of_the_rounds() -> None:
    steady = Measurement((1.0, 1.0, 1.0, 1.0, 1.0, 1.0), TWO_ROUNDS, "now")
    drifting = Measurement((1.0, 1.0, 1.0, 3.0, 3.0, 3.0), TWO_ROUNDS, "now")
    assert split_noise_floor([steady]) == 0.0
    assert split_noise_floor([steady, drifting]) == pytest.approx(0.5)


def test_one_round_has_no_halves() -> None:
    with pytest.raises(ValueError, match="have no halves"):
        split_noise_floor([Measurement((1.0, 2.0), Protocol(rounds=1, repeats=2), "now")])


DISTINCT = st.lists(st.integers(1, 10_000), min_size=3, max_size=12, unique=True)


@settings(deadline=None, max_examples=50)
@given(DISTINCT, st.randoms(use_true_random=False))
def test_kendall_counts_pairs_in_order(values: list[int], random: object) -> None:
    measured = np.array(values, dtype=float)
    predicted = measured.copy()
    random.shuffle(predicted)  # type: ignore[attr-defined]
    agreement = [
        np.sign((a - b) * (c - d)) for (a, c), (b, d) in combinations(zip(predicted, measured, strict=True), 2)
    ]
    assert PredictionQuality.of(predicted, measured).kendall == pytest.approx(np.mean(agreement))
