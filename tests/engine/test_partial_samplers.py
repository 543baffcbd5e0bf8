"""Samplers of a part of the space: masked options, and blocks that have not begun to learn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Gene
from hwnas.engine.training import samplers
from hwnas.engine.training.samplers import Sampler
from hwnas.engine.training.samplers.progressive_blocks import ProgressiveBlocks
from tests.engine.toy_spaces import GATED, every

BLOCKS = (
    Gene("path", (0, 1, 2)),
    Gene("b1.op", (0, 1, 2)),
    Gene("b1.width", (0, 1), needs=("b1.op", frozenset({1, 2}))),
    Gene("b2.op", (0, 1, 2)),
    Gene("b3.op", (0, 1, 2)),
)


def make(name: str, genes: tuple[Gene, ...], **options: object) -> Sampler:
    return samplers.make(name, options, genes, seed=0, prior=lambda _: lambda X: np.ones(len(X)))


def rows(sampler: Sampler, steps: range) -> np.ndarray:
    return np.array([path.architecture for step in steps for path in sampler.paths(step)])


def test_only_what_is_kept_is_drawn_and_all_of_it() -> None:
    X = rows(make("restricted", GATED, keep={"depth": [3, 1], "kernel3": [7]}), range(300))
    kept = arch.restrict(GATED, [[True, False, True], [True] * 2, [True] * 2, [False, False, True], [True] * 2])
    assert set(map(arch.to_architecture, X)) == every(kept)


def test_options_are_drawn_alike_or_architectures_are() -> None:
    depths = {
        uniform: Counter(rows(make("restricted", GATED, uniform=uniform), range(2000))[:, 0].tolist())
        for uniform in ("options", "architectures")
    }
    assert depths["options"][0] / 2000 == pytest.approx(1 / 3, abs=0.05)
    assert depths["architectures"][0] / 2000 == pytest.approx(2 / 26, abs=0.03)  # of 26 networks two are one deep


def test_several_paths_a_step_share_its_weight() -> None:
    paths = make("restricted", GATED, paths=4).paths(0)
    assert [path.weight for path in paths] == [0.25] * 4


@pytest.mark.parametrize(
    ("keep", "complaint"),
    [({"width": [1]}, "no gene is called 'width'"), ({"depth": [4]}, "'depth' has no option 4")],
)
def test_what_the_space_does_not_have_cannot_be_kept(keep: dict[str, list[int]], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make("restricted", GATED, keep=keep)


@pytest.mark.parametrize("uniform", ["options", "architectures"])
def test_blocks_behind_the_one_that_learns_wait_at_their_smallest(uniform: str) -> None:
    sampler = make("progressive_blocks", BLOCKS, steps=60, uniform=uniform)
    first, second, third = (rows(sampler, range(60 * k, 60 * k + 60)) for k in range(3))
    assert (first[:, 3:] == 0).all()
    assert (second[:, 4] == 0).all()
    for X, learning in ((first, [0, 1, 2]), (second, [0, 1, 2, 3]), (third, [0, 1, 2, 3, 4])):
        assert all(len(np.unique(X[:, i])) == len(BLOCKS[i].options) for i in learning)


def test_blocks_before_the_one_that_learns_are_frozen_until_all_learn_together() -> None:
    sampler = make("progressive_blocks", BLOCKS, steps=5, freeze=True)
    assert isinstance(sampler, ProgressiveBlocks)
    assert [sampler.block(step) for step in (0, 4, 5, 14, 15)] == ["b1", "b1", "b2", "b3", None]
    assert [sampler.frozen(step) for step in (0, 5, 14, 15)] == [(), ("b1",), ("b1", "b2"), ()]
    moving = make("progressive_blocks", BLOCKS, steps=5)
    assert isinstance(moving, ProgressiveBlocks)
    assert moving.frozen(14) == ()


def test_blocks_may_be_named_in_another_order_and_must_exist() -> None:
    sampler = make("progressive_blocks", BLOCKS, blocks=("b3", "b1"), steps=40)
    X = rows(sampler, range(40))
    assert (X[:, 1] == 0).all()
    assert len(np.unique(X[:, 4])) == 3
    with pytest.raises(ValueError, match="no gene belongs to 'b4': the blocks are b1, b2, b3"):
        make("progressive_blocks", BLOCKS, blocks=("b4",))
