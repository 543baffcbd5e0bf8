from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.devices.plugins import load_plugin
from hwnas.latency import (
    Block,
    LatencyTable,
    Prediction,
    Predictions,
    build,
    predictor_for,
    predictor_names,
    predictors,
)
from hwnas.latency.predictors import FloatArray
from hwnas.latency.predictors.corrected import CorrectedSum, Sums, fit_correction, weight_megabytes
from tests.latency.factories import conv_block
from tests.latency.predictor_contract import PredictorContract
from tests.latency.toys import DEVICE, FINGERPRINT, PROTOCOL, ToyCompiler, ToyRunner

A, B, C = conv_block(1), conv_block(2), conv_block(4)
MEDIANS = {A: 1.0, B: 2.0, C: 4.0}


@pytest.mark.parametrize("name", predictor_names())
def test_every_predictor_has_its_contract(name: str) -> None:
    assert name in {each.name for each in PredictorContract.__subclasses__()}


class TestCorrected(PredictorContract):
    name = "corrected"


class TestKernels(PredictorContract):
    name = "kernels"


class TestResidual(PredictorContract):
    name = "residual"


class TestTransfer(PredictorContract):
    name = "transfer"


def test_every_predictor_found_is_made_from_a_table() -> None:
    for name in predictor_names():
        found = load_plugin(predictors, name)
        assert callable(getattr(found, "for_table", found)), name


def test_an_unknown_predictor_names_the_known_ones(tmp_path: Path) -> None:
    table = LatencyTable.open_for(tmp_path / "t.sqlite", DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    with pytest.raises(LookupError, match=r"no 'oracle' among the predictors .known: corrected"):
        predictor_for(table, name="oracle")


def test_without_networks_it_is_the_plain_sum_and_says_how_little_it_knows() -> None:
    (prediction,) = CorrectedSum(MEDIANS).predict([[A, B, B]])
    assert prediction == Prediction(5.0, 1.25)


def test_one_network_gives_a_slope() -> None:
    predictor = CorrectedSum(MEDIANS)
    predictor.fit([([A, B], 6.0)])
    assert predictor.correction.form == "slope"
    assert predictor.predict([[C]])[0].mean_ms == pytest.approx(8.0)
    assert predictor.predict([[C]])[0].std_ms == pytest.approx(0.8)


def test_few_networks_bear_a_slope_alone() -> None:
    predictor = CorrectedSum(MEDIANS)
    predictor.fit([([A], 2.0), ([B], 3.0), ([C], 5.0)])  # exactly 1 + sum, but three numbers prove no two
    assert predictor.correction.form == "slope"


def test_a_constant_is_found_where_there_is_one() -> None:
    predictor = CorrectedSum(MEDIANS)
    networks = [[A], [B], [C], [A, B], [A, C], [B, C], [A, B, C], [C, C]]
    predictor.fit([(blocks, 0.5 + 1.2 * sum(MEDIANS[b] for b in blocks)) for blocks in networks])
    assert predictor.correction.form == "slope+constant"
    assert predictor.correction.constant_ms == pytest.approx(0.5)
    assert predictor.correction.slope == pytest.approx(1.2)
    assert predictor.predict([[B, B]])[0].mean_ms == pytest.approx(5.3)


def test_an_overhead_a_block_is_found_where_there_is_one() -> None:
    predictor = CorrectedSum(MEDIANS)
    networks = [[A], [A, A], [B, A, A], [C], [C, C, C], [A, B, C, A], [B], [A, A, A, A, A]]
    predictor.fit([(blocks, 1.2 * sum(MEDIANS[b] for b in blocks) + 0.3 * len(blocks)) for blocks in networks])
    assert predictor.correction.form == "slope+block"
    assert predictor.block_ms(A) == pytest.approx(1.25)
    assert predictor.predict([[B, B]])[0].mean_ms == pytest.approx(5.4)


def _sums(ms: np.ndarray) -> Sums:
    """Networks of one block without weights."""
    return Sums(ms, np.ones(len(ms)), np.zeros(len(ms)))


def test_the_deviation_is_the_error_on_networks_left_out() -> None:
    sums, measured = np.array([1.0, 1.0]), np.array([1.0, 2.0])
    # the slope of either alone: 1 for a network of 2 ms is 50 % too fast, 2 for a network of 1 ms is 100 % too slow
    correction = fit_correction(_sums(sums), measured)
    assert correction.relative_std == pytest.approx(np.sqrt((0.5**2 + 1.0**2) / 2))
    assert correction.errors == (("slope", correction.relative_std),)


def test_a_slope_that_falls_is_refused() -> None:
    sums, measured = np.arange(1.0, 9.0), np.arange(8.0, 0.0, -1.0)
    assert fit_correction(_sums(sums), measured).slope > 0


def test_a_network_of_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="was not measured"):
        CorrectedSum(MEDIANS).fit([([A], 0.0)])


def test_missing_blocks_are_an_error_with_their_number_and_the_cure() -> None:
    predictor = CorrectedSum({A: 1.0}, device="board", failures={B: "did not compile: no"})
    with pytest.raises(LookupError, match=r"2 of 3 blocks have no latency on 'board', first test.conv.channels=2"):
        predictor.predict([[A, B], [C, A]])
    with pytest.raises(LookupError, match=r"1 of them tried and failed .did not compile: no.*hwnas table build"):
        predictor.block_ms(B)
    with pytest.raises(LookupError):
        predictor.fit([([A, C], 1.0)])


class Guess:
    """Estimates every block at 3 ms, give or take 1."""

    def estimate(self, blocks: Sequence[Block]) -> tuple[FloatArray, FloatArray]:
        return np.full(len(blocks), 3.0), np.full(len(blocks), 1.0)


def test_estimated_blocks_are_named_and_widen_the_interval() -> None:
    measured, estimated = CorrectedSum({A: 1.0}, estimator=Guess()).predict([[A, A], [A, B, B, C]])
    assert (measured.mean_ms, measured.std_ms, measured.missing) == (2.0, 0.5, ())
    assert estimated.mean_ms == pytest.approx(1 + 3 + 3 + 3)
    assert estimated.std_ms == pytest.approx(np.hypot(0.25 * 10, 3 * 1.0))
    assert estimated.missing == (B, C)


def test_a_block_that_failed_is_not_estimated() -> None:
    predictor = CorrectedSum({A: 1.0}, failures={B: "did not compile: no"}, estimator=Guess())
    with pytest.raises(LookupError, match="tried and failed"):
        predictor.predict([[A, B]])


def test_predictions_are_arrays_and_single_predictions() -> None:
    predictions = CorrectedSum(MEDIANS).predict([[A], [A, B]])
    assert predictions.mean_ms == pytest.approx([1.0, 3.0])
    assert predictions.std_ms == pytest.approx([0.25, 0.75])
    assert list(predictions) == [predictions[0], predictions[1]] == [Prediction(1.0, 0.25), Prediction(3.0, 0.75)]
    low, high = predictions.interval_ms(0.9)
    assert low == pytest.approx([1 - 1.645 * 0.25, 3 - 1.645 * 0.75], abs=1e-3)
    assert high == pytest.approx([1 + 1.645 * 0.25, 3 + 1.645 * 0.75], abs=1e-3)


def test_predictions_of_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 means, 1 deviations"):
        Predictions(np.ones(2), np.ones(1), ((),))


def test_a_table_gives_a_predictor(tmp_path: Path) -> None:
    table = LatencyTable.open_for(tmp_path / "t.sqlite", DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    build(table, [A, C], compiler=ToyCompiler(), runner=ToyRunner(), protocol=PROTOCOL)
    assert predictor_for(table).predict([[A, C]])[0].mean_ms == 5.0
    with pytest.raises(LookupError, match="'toy'"):
        predictor_for(table).predict([[B]])


POSITIVE = st.floats(0.1, 50)


@settings(deadline=None)
@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=5))
def test_the_slope_has_the_least_relative_error(pairs: list[tuple[float, float]]) -> None:
    sums, measured = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    slope = fit_correction(_sums(sums), measured).slope

    def error(candidate: float) -> float:
        return sum((candidate * s / m - 1) ** 2 for s, m in zip(sums, measured, strict=True))

    ratios = sums / measured
    assert slope == pytest.approx(ratios.sum() / (ratios**2).sum())
    assert error(slope) <= min(error(slope * 1.001), error(slope * 0.999))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(POSITIVE, st.integers(1, 20), POSITIVE), min_size=9, max_size=12))
def test_the_chosen_form_is_the_best_of_a_slow_leave_one_out(triples: list[tuple[float, int, float]]) -> None:
    sums = np.array([s for s, _, _ in triples])
    counts = np.array([float(n) for _, n, _ in triples])
    measured = np.array([m for _, _, m in triples])
    correction = fit_correction(Sums(sums, counts, np.zeros(len(sums))), measured)
    assert correction.relative_std == min(error for _, error in correction.errors)
    slow = [
        1 - np.delete(sums / measured, i).sum() / (np.delete(sums / measured, i) ** 2).sum() * sums[i] / measured[i]
        for i in range(len(sums))
    ]
    assert dict(correction.errors)["slope"] == pytest.approx(np.sqrt(np.mean(np.square(slow))))


def _cold(rng: np.random.Generator, fetch_ms_per_mb: float) -> tuple[Sums, np.ndarray]:
    """Twelve networks whose weights come from memory, and their latencies with 1 % of noise."""
    sums = Sums(rng.uniform(0.5, 2, 12), rng.integers(5, 15, 12).astype(float), rng.uniform(0.2, 4, 12))
    measured = 1.2 * (sums.ms - 0.01 * sums.blocks + fetch_ms_per_mb * sums.weights_mb)
    return sums, measured * rng.lognormal(0, 0.01, 12)


def test_weights_that_a_block_alone_found_in_the_cache_are_charged_for() -> None:
    for seed in range(5):
        correction = fit_correction(*_cold(np.random.default_rng(seed), 0.1))
        assert correction.form == "slope+block+weights"
        assert correction.fetch_ms_per_mb == pytest.approx(0.1, rel=0.2)
        assert correction.relative_std < 0.03


def test_weights_never_come_for_less_than_nothing() -> None:
    for seed in range(5):
        sums, measured = _cold(np.random.default_rng(seed), -0.05)
        assert fit_correction(sums, np.maximum(measured, 0.01)).fetch_ms_per_mb >= 0


def test_networks_of_heavy_blocks_are_predicted_with_their_weights() -> None:
    blocks = [conv_block(channels) for channels in (8, 64, 256, 512)]
    predictor = CorrectedSum(dict.fromkeys(blocks, 0.1))

    def true_ms(network: list[Block]) -> float:
        return 0.1 * len(network) + sum(0.2 * weight_megabytes(block) for block in network)

    rng = np.random.default_rng(0)
    networks = [[blocks[i] for i in rng.integers(0, 4, 6)] for _ in range(20)]
    predictor.fit([(network, true_ms(network)) for network in networks[:12]])
    for network in networks[12:]:
        assert predictor.predict([network])[0].mean_ms == pytest.approx(true_ms(network))
        sums = np.array([sum(map(predictor.block_ms, network))])
        assert predictor.correct(sums)[0] == pytest.approx(true_ms(network))  # what a search adds up


def test_a_block_whose_factory_is_not_installed_is_charged_for_no_weights() -> None:
    assert weight_megabytes(Block.of("test.unheard", (1, 1, 1, 1))) == 0.0
    assert weight_megabytes(conv_block(512)) == pytest.approx(4e-6 * (512 * 512 + 512))
