from __future__ import annotations

import numpy as np
import pytest

from hwnas.latency import Block
from hwnas.latency.predictors._features import block_costs
from hwnas.latency.predictors.corrected import CorrectedSum
from hwnas.latency.predictors.residual import ResidualSum
from tests.latency import factories as _registered  # noqa: F401

# of two sizes, so that MACs are no multiple of weights, which the corrected sum knows already
BLOCKS = [
    Block.of("test.conv", (1, channels, size, size), channels=channels)
    for channels, size in ((1, 4), (2, 16), (3, 4), (5, 16), (8, 4), (13, 16), (21, 4), (21, 16))
]
MEDIANS = {block: 0.1 + 0.05 * float(dict(block.kwargs)["channels"]) for block in BLOCKS}


def _networks(rng: np.random.Generator, n: int) -> list[list[Block]]:
    return [[BLOCKS[i] for i in rng.integers(0, len(BLOCKS), size)] for size in rng.integers(4, 12, n)]


def _sum_ms(network: list[Block]) -> float:
    return sum(MEDIANS[block] for block in network)


def _with_macs_ms(network: list[Block]) -> float:
    """A device on which MACs cost more inside a network than alone, where caches are hot."""
    return _sum_ms(network) + 1e-5 * sum(block_costs(block)[0] for block in network)


def _error(predictor: CorrectedSum | ResidualSum, networks: list[list[Block]], truth: list[float]) -> float:
    return float(np.mean(np.abs(predictor.predict(networks).mean_ms / np.array(truth) - 1)))


def test_what_costs_explain_of_whole_networks_is_learned() -> None:
    rng = np.random.default_rng(0)
    taught, unseen = _networks(rng, 24), _networks(rng, 60)
    residual, corrected = ResidualSum(CorrectedSum(MEDIANS)), CorrectedSum(MEDIANS)
    for predictor in (residual, corrected):
        predictor.fit([(network, _with_macs_ms(network) * np.exp(0.005 * rng.normal())) for network in taught])
    truth = [_with_macs_ms(network) for network in unseen]
    assert _error(residual, unseen, truth) < 0.5 * _error(corrected, unseen, truth)
    assert residual.residual.relative_std is not None
    assert residual.residual.corrected_error is not None
    assert residual.residual.relative_std < residual.residual.corrected_error


def test_its_sum_of_blocks_is_its_prediction() -> None:
    rng = np.random.default_rng(1)
    taught, unseen = _networks(rng, 24), _networks(rng, 10)
    predictor = ResidualSum(CorrectedSum(MEDIANS))
    predictor.fit([(network, _with_macs_ms(network)) for network in taught])
    assert any(predictor.residual.per_cost_ms)
    sums = np.array([sum(map(predictor.block_ms, network)) for network in unseen])
    predictions = predictor.predict(unseen)
    assert predictor.correct(sums) == pytest.approx(predictions.mean_ms)
    assert predictor.std_ms(sums, np.zeros(10)) == pytest.approx(predictions.std_ms)


def test_noise_is_left_to_the_corrected_sum() -> None:
    kept = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        networks = _networks(rng, 16)
        measured = [(network, 1.2 * _sum_ms(network) * np.exp(0.03 * rng.normal())) for network in networks]
        predictor, plain = ResidualSum(CorrectedSum(MEDIANS)), CorrectedSum(MEDIANS)
        predictor.fit(measured)
        plain.fit(measured)
        if not any(predictor.residual.per_cost_ms):
            kept += 1
            assert predictor.predict(networks).mean_ms == pytest.approx(plain.predict(networks).mean_ms)
    assert kept >= 8


def test_few_networks_teach_no_residual() -> None:
    rng = np.random.default_rng(2)
    predictor = ResidualSum(CorrectedSum(MEDIANS))
    predictor.fit([(network, _with_macs_ms(network)) for network in _networks(rng, 7)])
    assert not any(predictor.residual.per_cost_ms)
