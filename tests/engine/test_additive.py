from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Gene, Slot, blocks
from hwnas.latency.block import Block
from tests.engine.toy_spaces import ToySpace, every, milliseconds, spaces


@given(spaces())
def test_gathers_equal_the_sum_over_the_blocks_of_each_network(space: ToySpace) -> None:
    architectures = sorted(every(space.genes))
    totals = AdditiveCost.of(space, milliseconds)(np.array(architectures))
    obvious = [sum(map(milliseconds, blocks(space, architecture))) for architecture in architectures]
    assert totals == pytest.approx(obvious)


@given(spaces())
def test_the_minimum_is_that_of_looking_at_every_architecture(space: ToySpace) -> None:
    cost = AdditiveCost.of(space, milliseconds)
    architecture, least = cost.minimum()
    architectures = sorted(every(space.genes))
    assert architecture in architectures
    assert least == pytest.approx(cost(np.array(architectures)).min())
    assert cost(np.array([architecture]))[0] == pytest.approx(least)


@given(spaces())
def test_no_block_is_asked_for_that_no_architecture_needs(space: ToySpace) -> None:
    asked: list[Block] = []
    AdditiveCost.of(space, lambda block: asked.append(block) or 1.0)  # type: ignore[func-returns-value]
    needed = {block for architecture in every(space.genes) for block in blocks(space, architecture)}
    assert set(asked) == needed
    assert len(asked) == len(needed)


def test_a_barred_option_costs_nan_not_zero() -> None:
    genes = (Gene("kernel", (3, 5), allowed=(True, False)),)
    slots = (Slot("conv", ("kernel",), lambda options: Block.of("conv", (1, 8), **options)),)
    cost = AdditiveCost.of(ToySpace(genes, slots), lambda block: 2.0)
    assert cost(np.array([[0], [1]])) == pytest.approx([2.0, np.nan], nan_ok=True)


def test_a_row_costs_the_same_in_whatever_company() -> None:
    """To the last bit, or a search that is resumed in other batches would end elsewhere."""
    rng = np.random.default_rng(0)
    genes = tuple(Gene(f"g{i}", tuple(range(4))) for i in range(30))
    scopes = tuple((i, (i * 7 + 1) % 30) for i in range(29))
    cost = AdditiveCost(genes, scopes, tuple(rng.random((4, 4)) for _ in scopes))
    X = rng.integers(0, 4, (301, 30))
    alone = np.concatenate([cost(row[None]) for row in X])
    assert cost(X).tobytes() == alone.tobytes()
    assert cost(X[::-1])[::-1].tobytes() == alone.tobytes()
    assert alone == pytest.approx(sum(a[X[:, i], X[:, j]] for (i, j), a in zip(scopes, cost.arrays, strict=True)))


def test_a_network_without_slots_costs_nothing() -> None:
    assert AdditiveCost((Gene("a", (1, 2)),), (), ())(np.array([[0], [1]])).tolist() == [0, 0]
