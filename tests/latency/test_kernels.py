from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import hwnas.engine.spaces.mobilenet_v3.blocks  # noqa: F401  # registers the factories of the recorded blocks
from hwnas.latency import Block
from hwnas.latency.predictors._features import block_costs
from hwnas.latency.predictors.kernels import KernelRegressors
from tests.latency.factories import conv_block

RECORDED = Path(__file__).with_name("recorded_blocks.json")


def _mbconv(rng: np.random.Generator) -> Block:
    channels, size = int(rng.choice([16, 24, 40, 80])), int(rng.choice([8, 16, 32]))
    return Block.of(
        "mobilenet_v3.mbconv",
        (1, channels, size, size),
        in_channels=channels,
        out_channels=channels,
        kernel=int(rng.choice([3, 5, 7])),
        stride=1,
        hidden=channels * int(rng.choice([2, 3, 4, 6])),
        se=bool(rng.integers(2)),
        activation="relu",
    )


def _device_ms(block: Block, rng: np.random.Generator) -> float:
    """A device with a call overhead, that is slow at large kernels and at gates, with 5 % of noise."""
    macs, moved, _, operations = block_costs(block)
    given = dict(block.kwargs)
    time = 0.01 * operations + macs / 2e7 + moved / 5e6
    time *= 1.3 if given["se"] else 1.0
    time *= 1 + 0.05 * (int(given["kernel"]) - 3)
    return float(time * np.exp(0.05 * rng.normal()))


def _split(seed: int, taught: int) -> tuple[dict[Block, float], dict[Block, float]]:
    rng = np.random.default_rng(seed)
    blocks = list(dict.fromkeys(_mbconv(rng) for _ in range(2 * taught + 60)))
    latencies = {block: _device_ms(block, rng) for block in blocks}
    return dict(list(latencies.items())[:taught]), dict(list(latencies.items())[taught:])


def test_intervals_of_blocks_left_out_cover_what_they_say() -> None:
    inside: dict[float, list[bool]] = {0.8: [], 0.9: []}
    for seed in range(20):
        taught, held = _split(seed, 40)
        regressors, measured = KernelRegressors(taught), np.array(list(held.values()))
        for level, found in inside.items():
            low, high = regressors.interval_ms(list(held), level)
            found += list((low <= measured) & (measured <= high))
    for level, found in inside.items():
        assert np.mean(found) == pytest.approx(level, abs=0.03)


def test_blocks_left_out_are_estimated_better_than_by_their_macs() -> None:
    taught, held = _split(0, 60)
    measured = np.array(list(held.values()))
    mean, std = KernelRegressors(taught).estimate(list(held))
    scale = np.median([ms / block_costs(block)[0] for block, ms in taught.items()])
    by_macs = np.array([scale * block_costs(block)[0] for block in held])
    error = np.mean(np.abs(mean / measured - 1))
    assert error < 0.08
    assert error < 0.3 * np.mean(np.abs(by_macs / measured - 1))
    assert np.all(std > 0)


def test_recorded_blocks_left_out_lie_inside_their_intervals() -> None:
    rows = json.loads(RECORDED.read_text())["blocks"]
    latencies = {Block.from_json(row["block"]): float(row["latency_ms"]) for row in rows}
    blocks, inside, errors = list(latencies), [], []
    for seed in range(12):
        order = np.random.default_rng(seed).permutation(len(blocks))
        kept, held = order[: len(order) * 7 // 10], [blocks[i] for i in order[len(order) * 7 // 10 :]]
        regressors = KernelRegressors({blocks[i]: latencies[blocks[i]] for i in kept})
        measured = np.array([latencies[block] for block in held])
        low, high = regressors.interval_ms(held, 0.9)
        inside += list((low <= measured) & (measured <= high))
        errors += list(np.abs(regressors.estimate(held)[0] / measured - 1))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.03)
    assert np.mean(errors) < 0.1


def test_a_kind_never_measured_is_estimated_with_more_doubt() -> None:
    taught, held = _split(1, 30)
    regressors = KernelRegressors(taught)
    foreign = conv_block(64)
    low, high = regressors.interval_ms([next(iter(held)), foreign])
    assert 0 < low[1] < high[1]
    assert high[1] / low[1] > high[0] / low[0]


def test_one_block_teaches_nothing_about_others() -> None:
    with pytest.raises(LookupError, match=r"1 measured block.s. on 'board' teach nothing.*hwnas table build"):
        KernelRegressors({conv_block(1): 1.0}, device="board")
