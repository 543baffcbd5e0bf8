from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.engine import exact
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import FloatArray, Gene, IntArray, check, size
from hwnas.engine.exact import Limit, exact_front, least
from hwnas.engine.front import non_dominated
from tests.engine.spaces import mobilenet
from tests.engine.toy_spaces import GATED, every, gene_sets


@st.composite
def additive_costs(draw: st.DrawFn, *, objectives: int, low: int = -3) -> list[AdditiveCost]:
    """Costs over one random gated space, whole or real numbers, some of them infinite; each with scopes of its own."""
    genes = draw(gene_sets())
    scopes = st.lists(
        st.lists(st.integers(0, len(genes) - 1), max_size=3, unique=True).map(tuple), min_size=1, max_size=5
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    whole, failures = draw(st.booleans()), draw(st.sampled_from([0.0, 0.0, 0.1]))
    costs = []
    for _ in range(objectives):
        arrays = []
        held = tuple(draw(scopes))
        for scope in held:
            shape = [len(genes[g].options) for g in scope]
            array = rng.integers(low, 5, shape).astype(float) if whole else rng.random(shape) * 8 + low
            arrays.append(np.where(rng.random(shape) < failures, np.inf, array))
        costs.append(AdditiveCost(genes, held, tuple(arrays)))
    return costs


def brute_force(costs: Sequence[AdditiveCost], limits: Sequence[Limit] = ()) -> FloatArray:
    """The points of the front, each once and sorted, by looking at every architecture."""
    X = np.array(sorted(every(costs[0].genes)))
    F = np.stack([cost(X) for cost in costs], axis=1)
    kept = np.isfinite(F).all(1)
    for limit in limits:
        kept &= limit.cost(X) <= limit.upper
    return np.unique(F[kept][non_dominated(F[kept])], axis=0) if kept.any() else np.zeros((0, len(costs)))


def values(cost: AdditiveCost) -> FloatArray:
    """The finite costs of all architectures."""
    found = cost(np.array(sorted(every(cost.genes))))
    return found[np.isfinite(found)]


def random_costs(genes: tuple[Gene, ...], n: int, seed: int) -> list[AdditiveCost]:
    rng = np.random.default_rng(seed)
    scopes = tuple((i,) for i in range(len(genes)))
    return [AdditiveCost(genes, scopes, tuple(rng.random(len(g.options)) for g in genes)) for _ in range(n)]


def early(draw: st.DataObject, patch: pytest.MonkeyPatch) -> None:
    """Small numbers of labels are treated like large ones, in half of the cases."""
    if draw.draw(st.booleans()):
        patch.setattr(exact, "CROWD", 1)
        patch.setattr(exact, "CHUNK", 3)


# ---- the front ------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4).flatmap(lambda n: additive_costs(objectives=n)), st.data())
def test_the_front_is_that_of_looking_at_every_architecture(costs: list[AdditiveCost], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        early(data, patch)
        front = exact_front(costs)
    assert front.costs == pytest.approx(brute_force(costs))
    for row in front.X:
        check(costs[0].genes, row.tolist())
    assert (np.stack([cost(front.X) for cost in costs], axis=1) == front.costs).all()


@settings(max_examples=200, deadline=None)
@given(additive_costs(objectives=4), st.integers(1, 3), st.data())
def test_within_limits_the_front_is_that_of_what_keeps_them(
    costs: list[AdditiveCost], objectives: int, data: st.DataObject
) -> None:
    """Limits lie on values that architectures have: what just keeps one must not be lost to rounding."""
    limits = []
    for k in data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=2)):
        if len(values(costs[k])):
            limits.append(Limit(costs[k], data.draw(st.sampled_from(sorted(values(costs[k]).tolist())))))
    assert exact_front(costs[:objectives], limits=limits).costs == pytest.approx(
        brute_force(costs[:objectives], limits)
    )


@settings(deadline=None)
@given(st.integers(1, 3).flatmap(lambda n: additive_costs(objectives=n)))
def test_of_equal_networks_one_stays_the_same_each_time(costs: list[AdditiveCost]) -> None:
    first, second = exact_front(costs), exact_front(costs)
    assert (first.X == second.X).all()
    assert len(np.unique(first.costs, axis=0)) == len(first)


def test_blocks_in_another_order_are_no_second_point() -> None:
    """Sums of the same numbers in another order differ in the last bit, and neither would beat the other."""
    genes = tuple(Gene(f"g{i}", (0, 1, 2)) for i in range(12))
    scopes = tuple((i,) for i in range(12))
    costs = [AdditiveCost(genes, scopes, (np.array(a),) * 12) for a in ([0.1, 0.7, 1.7], [0.9, 0.4, 0.3])]
    # how many genes take each option decides both costs: on the front only options 0 and 1, or 1 and 2
    assert len(exact_front(costs)) == 25


def test_a_space_of_fifty_thousand_networks_has_the_front_of_looking_at_all() -> None:
    genes = (*GATED, *(Gene(f"g{i}", (0, 1, 2)) for i in range(6)))
    costs = random_costs(genes, 3, seed=5)
    front = exact_front(costs)
    assert len(front) > 20
    assert front.costs == pytest.approx(brute_force(costs))


def test_masks_bar_options() -> None:
    genes = (Gene("kernel", (3, 5, 7), allowed=(False, True, True)),)
    costs = [AdditiveCost(genes, ((0,),), (np.array(a),)) for a in ([0.0, 1.0, 2.0], [0.0, 2.0, 1.0])]
    assert exact_front(costs).X.tolist() == [[1], [2]]


def test_a_space_whose_blocks_all_failed_has_an_empty_front() -> None:
    cost = AdditiveCost((Gene("kernel", (3, 5)),), ((0,),), (np.array([np.inf, np.inf]),))
    assert exact_front([cost, cost]).costs.shape == (0, 2)


def test_costs_of_real_blocks_have_the_front_of_looking_at_every_network() -> None:
    space = mobilenet(resolutions=(8,))
    by_size = AdditiveCost.of(space, lambda block: float(np.prod(block.inputs[0])))
    by_name = AdditiveCost.of(space, lambda block: 1.0 + len(block.key) % 7)
    gains = AdditiveCost(space.genes, by_name.scopes, tuple(-array for array in by_name.arrays))
    assert exact_front([by_size, gains]).costs == pytest.approx(brute_force([by_size, gains]))


def test_a_limit_of_infinity_bars_only_what_failed() -> None:
    costs = random_costs(GATED, 2, seed=0)
    failed = AdditiveCost(GATED, ((1,),), (np.array([np.inf, 1.0]),))
    for epsilon in (0.0, 0.1):
        found = exact_front(costs, limits=[Limit(failed, np.inf)], epsilon=epsilon)
        assert len(found) > 0
        assert (found.X[:, 1] == 1).all()


# ---- epsilon --------------------------------------------------------------------------------------------------------


def stands_for_all(costs: FloatArray, true: FloatArray, allowed: FloatArray) -> bool:
    """Whether each true point has one that is higher by no more than `allowed` (points, objectives)."""
    return all((costs <= point + extra + 1e-9).all(1).any() for point, extra in zip(true, allowed, strict=True))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3).flatmap(lambda n: additive_costs(objectives=n, low=1)), st.sampled_from([0.1, 0.5]), st.data())
def test_every_point_has_one_within_the_factor_of_epsilon(
    costs: list[AdditiveCost], epsilon: float, data: st.DataObject
) -> None:
    true = brute_force(costs)
    if all((values(cost) > 0).all() for cost in costs):
        with pytest.MonkeyPatch.context() as patch:
            early(data, patch)
            assert stands_for_all(exact_front(costs, epsilon=epsilon).costs, true, epsilon * true)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3).flatmap(lambda n: additive_costs(objectives=n)), st.sampled_from([0.1, 0.5]), st.data())
def test_of_costs_that_may_be_negative_epsilon_is_a_share_of_the_range(
    costs: list[AdditiveCost], epsilon: float, data: st.DataObject
) -> None:
    true = brute_force(costs)
    X = np.array(sorted(every(costs[0].genes)))
    F = np.stack([cost(X) for cost in costs], axis=1)
    F = F[np.isfinite(F).all(1)]
    if len(F):
        allowed = np.where(F.min(0) > 0, epsilon * true, epsilon * (F.max(0) - F.min(0)))
        with pytest.MonkeyPatch.context() as patch:
            early(data, patch)
            assert stands_for_all(exact_front(costs, epsilon=epsilon).costs, true, allowed)


@settings(max_examples=200, deadline=None)
@given(additive_costs(objectives=3, low=1), st.sampled_from([0.1, 0.5]), st.data())
def test_with_epsilon_limits_are_kept_all_the_same(
    costs: list[AdditiveCost], epsilon: float, data: st.DataObject
) -> None:
    if not all(len(values(cost)) and (values(cost) > 0).all() for cost in costs):
        return
    limits = [Limit(cost, data.draw(st.sampled_from(sorted(values(cost).tolist())))) for cost in costs[1:]]
    true = brute_force(costs[:2], limits)
    with pytest.MonkeyPatch.context() as patch:
        early(data, patch)
        front = exact_front(costs[:2], limits=limits, epsilon=epsilon)
    assert all((limit.cost(front.X) <= limit.upper + 1e-9).all() for limit in limits)
    assert stands_for_all(front.costs, true, epsilon * true)


@pytest.mark.parametrize("crowd", [1, 100, 20_000])
def test_with_epsilon_a_large_front_shrinks_and_keeps_its_word(crowd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "CROWD", crowd)
    costs = random_costs(tuple(Gene(f"g{i}", tuple(range(12))) for i in range(40)), 2, seed=1)
    whole, near = exact_front(costs), exact_front(costs, epsilon=0.05)
    assert len(near) < len(whole) / 3
    assert stands_for_all(near.costs, whole.costs, 0.05 * whole.costs)


# ---- one cost -------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(additive_costs(objectives=3), st.data())
def test_the_least_within_limits_is_that_of_looking_at_every_architecture(
    costs: list[AdditiveCost], data: st.DataObject
) -> None:
    limits = [
        Limit(cost, data.draw(st.sampled_from(sorted(values(cost).tolist()))))
        for cost in costs[1:]
        if len(values(cost))
    ]
    found, true = least(costs[0], limits=limits), brute_force(costs[:1], limits)
    assert (found is None) == (len(true) == 0)
    if found is not None:
        assert found[1] == pytest.approx(true[0, 0])
        row = np.array([found[0]])
        assert all(limit.cost(row)[0] <= limit.upper + 1e-9 for limit in limits)


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_too_many_partial_networks_are_an_error_that_names_epsilon() -> None:
    costs = random_costs(tuple(Gene(f"g{i}", (0, 1, 2, 3)) for i in range(20)), 3, seed=1)
    with pytest.raises(ValueError, match="more than most = 100: give epsilon"):
        exact_front(costs, most=100)


def test_costs_of_different_spaces_are_an_error() -> None:
    first, second = random_costs((Gene("a", (1, 2)),), 1, 0), random_costs((Gene("b", (1, 2)),), 1, 0)
    with pytest.raises(ValueError, match="different spaces"):
        exact_front([*first, *second])


def test_no_cost_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one cost"):
        exact_front([])


@pytest.mark.parametrize("epsilon", [-0.1, float("nan"), float("inf")])
def test_an_epsilon_that_is_no_share_is_an_error(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon is"):
        exact_front(random_costs(GATED, 2, 0), epsilon=epsilon)


def test_a_limit_that_is_no_number_is_an_error() -> None:
    cost = random_costs(GATED, 1, 0)[0]
    with pytest.raises(ValueError, match="limit of nan"):
        Limit(cost, float("nan"))


def test_a_cost_that_joins_too_many_genes_is_an_error_that_names_them() -> None:
    genes = tuple(Gene(f"g{i}", tuple(range(10))) for i in range(9))
    pairs = tuple((i, (i + k) % 9) for i in range(9) for k in range(1, 5))
    cost = AdditiveCost(genes, pairs, tuple(np.ones((10, 10)) for _ in pairs))
    with pytest.raises(ValueError, match="combinations of g0, g1"):
        exact_front([cost])


def test_a_space_of_more_than_ten_to_the_eighteen_networks_is_searched_whole() -> None:
    genes = tuple(Gene(f"g{i}", tuple(range(6))) for i in range(24))
    assert size(genes) > 10**18
    costs = random_costs(genes, 2, seed=3)
    front = exact_front(costs)
    assert front.costs[0, 0] == pytest.approx(costs[0].minimum()[1])
    assert front.costs[-1, 1] == pytest.approx(costs[1].minimum()[1])
    drawn: IntArray = np.random.default_rng(0).integers(0, 6, (2000, 24))
    rivals = np.stack([cost(drawn) for cost in costs], axis=1)
    assert all((front.costs <= rival).all(1).any() for rival in rivals)
