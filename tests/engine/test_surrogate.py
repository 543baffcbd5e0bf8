from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms import Known
from hwnas.engine.algorithms._design import extremes, far_apart, front_of, most_capable
from hwnas.engine.algorithms._improvement import most_improving
from hwnas.engine.algorithms.nsga2 import Nsga2
from hwnas.engine.algorithms.surrogate import Surrogate
from hwnas.engine.architecture import FloatArray, Gene, IntArray, sample, size
from hwnas.engine.front import hypervolume, non_dominated
from hwnas.engine.genome import Genome

WIDE = tuple(Gene(f"g{i}", tuple(range(4))) for i in range(16))
SMALL = tuple(Gene(f"g{i}", tuple(range(3))) for i in range(5))
MACS = AdditiveCost(WIDE, tuple((i,) for i in range(16)), tuple(np.arange(4) * (1.0 + i % 5) for i in range(16)))


def errors(X: IntArray) -> FloatArray:
    """Larger options help, with diminishing returns and one pair that helps together, (n,)."""
    gain = np.sqrt(X) @ np.linspace(0.5, 1.5, X.shape[1])
    return 1 - 0.02 * (gain + (X[:, 0] >= 2) * (X[:, 1] >= 2))


def sizes(X: IntArray) -> FloatArray:
    return MACS(X)


def both(X: IntArray) -> FloatArray:
    return np.stack([errors(X), sizes(X)], axis=1)


def free(X: IntArray) -> FloatArray:
    return np.zeros(len(X))


CHEAP = Known((None, sizes), free, (MACS,))


def asked(algorithm: Surrogate | Nsga2, rounds: int, violation=free) -> list[IntArray]:  # type: ignore[no-untyped-def]
    found = []
    for _ in range(rounds):
        found.append(algorithm.ask())
        broken = violation(found[-1])
        algorithm.tell(found[-1], np.where(broken[:, None] > 0, np.nan, both(found[-1])), broken)
    return found


# ---- choice of a batch ----------------------------------------------------------------------------------------------


def slow_choice(draws: FloatArray, front: FloatArray, reference: FloatArray, n: int) -> list[int]:
    """Greedily the candidate whose mean hypervolume over the draws, with all before it, is the largest."""
    chosen: list[int] = []
    while len(chosen) < n:
        gains = [
            np.mean([hypervolume(np.concatenate([front, draw[[*chosen, c]]]), reference) for draw in draws])
            - np.mean([hypervolume(np.concatenate([front, draw[chosen]]), reference) for draw in draws])
            for c in range(draws.shape[1])
        ]
        if max(gains) <= 1e-12:
            break
        chosen.append(int(np.argmax(gains)))
    return chosen


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), objectives=st.sampled_from([1, 2]))
def test_a_batch_is_the_one_that_hypervolumes_of_all_draws_choose(seed: int, objectives: int) -> None:
    rng = np.random.default_rng(seed)
    draws = np.repeat(rng.random((1, 12, objectives)), 6, axis=0)
    draws[:, :, -1] += rng.normal(0, 0.3, (6, 12))
    front = rng.random((5, objectives))
    reference = np.full(objectives, 1.1)
    found = most_improving(draws, front, reference, n=4, rng=rng)
    assert found.tolist() == slow_choice(draws, front, reference, 4)


def test_three_objectives_are_integrated_nearly_as_well() -> None:
    ratios = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        draws, front = rng.random((4, 20, 3)), 0.3 + 0.7 * rng.random((6, 3))
        reference = np.full(3, 1.1)

        def reached(rows: IntArray | list[int], draws=draws, front=front, reference=reference) -> float:  # type: ignore[no-untyped-def]
            return float(np.mean([hypervolume(np.concatenate([front, draw[rows]]), reference) for draw in draws]))

        ratios.append(
            reached(most_improving(draws, front, reference, n=3, rng=rng))
            / reached(slow_choice(draws, front, reference, 3))
        )
    assert min(ratios) > 0.99


def test_of_rows_that_cost_the_same_one_is_chosen() -> None:
    draws = np.zeros((3, 5, 2)) + 0.5
    found = most_improving(draws, np.array([[0.9, 0.9]]), np.ones(2), n=5, rng=np.random.default_rng(0))
    assert len(found) == 1


def test_a_row_that_adds_nothing_is_not_chosen() -> None:
    draws = np.array([[[0.9, 0.9], [0.4, 0.6], [2.0, 0.0]]])
    found = most_improving(draws, np.array([[0.5, 0.5]]), np.ones(2), n=3, rng=np.random.default_rng(0))
    assert found.tolist() == [1]


# ---- the first batch ------------------------------------------------------------------------------------------------


def test_extremes_are_the_least_and_the_most_of_a_cost() -> None:
    least, most = extremes([MACS])
    assert (least == 0).all()
    assert (most == 3).all()


def test_rows_far_apart_begin_far_from_those_before() -> None:
    genome = Genome.of(SMALL)
    pool = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [2, 2, 2, 2, 2], [2, 2, 0, 0, 0]])
    found = far_apart(genome, pool, pool[:1], 2)
    assert found.tolist() == [[2, 2, 2, 2, 2], [2, 2, 0, 0, 0]]


def test_a_front_of_computed_costs_keeps_the_limits() -> None:
    genome = Genome.of(WIDE)
    rows = front_of(genome, both, lambda X: np.maximum(sizes(X) - 40, 0), 6, np.random.default_rng(0))
    assert 1 < len(rows) <= 6
    assert (sizes(rows) <= 40).all()
    assert non_dominated(both(rows)).all()


def test_rows_with_the_most_capacity_for_a_cost_have_no_rival() -> None:
    genes = SMALL
    macs, latency = (
        AdditiveCost(genes, tuple((i,) for i in range(5)), tuple(np.array(a) for a in arrays))
        for arrays in (
            ((0, 1, 3),) * 5,
            ((0.0, 2.0, 3.0), (0.0, 5.0, 9.0), (0.0, 1.0, 7.0), (1.0, 0.0, 2.0), (0, 1, 8)),
        )
    )
    rows = most_capable(macs, [latency], free, 6)
    whole = Genome.of(genes).decode(range(size(genes)))
    assert 1 < len(rows) <= 6
    for row in rows:
        assert not ((macs(whole) > macs(row[None])) & (latency(whole) < 0.99 * latency(row[None]))).any()


def test_the_first_batch_has_the_extremes_of_every_additive_cost() -> None:
    X = Surrogate(WIDE, population=12, rng=np.random.default_rng(0), known=CHEAP).ask()
    assert {int(sizes(X).min()), int(sizes(X).max())} == {0, int(sizes(np.full((1, 16), 3))[0])}


# ---- rounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [None, CHEAP], ids=["nothing known", "cheap known"])
def test_it_reaches_in_sixty_evaluations_more_than_nsga2(known: Known | None) -> None:
    reference = (1.0, 160.0)
    ranked, evolved = [], []
    for seed in range(5):
        rows = asked(Surrogate(WIDE, population=20, rng=np.random.default_rng(seed), known=known), 3)
        ranked.append(hypervolume(both(np.concatenate(rows)), reference))
        rows = asked(Nsga2(WIDE, population=20, rng=np.random.default_rng(seed)), 3)
        evolved.append(hypervolume(both(np.concatenate(rows)), reference))
    assert np.mean(ranked) > 1.02 * np.mean(evolved)


@pytest.mark.parametrize("ranker", ["ridge", "boosting", "mlp"])
def test_any_ranker_may_be_the_one_that_learns(ranker: str) -> None:
    rows = asked(Surrogate(WIDE, population=20, rng=np.random.default_rng(0), known=CHEAP, ranker=ranker), 3)
    front, reference = both(np.concatenate(rows[:1])), (1.0, 160.0)
    assert hypervolume(both(np.concatenate(rows)), reference) > 1.05 * hypervolume(front, reference)


def test_where_every_cost_can_be_computed_the_second_batch_is_of_the_true_front() -> None:
    known = Known((lambda X: X.sum(1) * 1.0, lambda X: -(X**2).sum(1) * 1.0), free)
    algorithm = Surrogate(SMALL, population=16, rng=np.random.default_rng(0), known=known)
    first = algorithm.ask()
    costs = np.stack([first.sum(1), -(first**2).sum(1)], axis=1) * 1.0
    algorithm.tell(first, costs, free(first))
    second = algorithm.ask()
    best = second[: len(np.unique(second.sum(1))) // 2]
    whole = sample(SMALL, 5000, np.random.default_rng(1))
    for row in best:
        rivals = whole[whole.sum(1) <= row.sum()]
        assert (rivals**2).sum(1).max() == (row**2).sum()


def test_only_feasible_rows_are_asked_where_a_limit_can_be_computed() -> None:
    def over(X: IntArray) -> FloatArray:
        return np.maximum(sizes(X) / 30 - 1, 0)

    known = Known((None, sizes), over, (MACS,))
    rows = asked(Surrogate(WIDE, population=20, rng=np.random.default_rng(0), known=known), 3, over)
    assert (over(np.concatenate(rows)) == 0).all()


def test_where_nothing_feasible_is_found_rows_come_nearer_to_the_limit() -> None:
    def over(X: IntArray) -> FloatArray:
        return sizes(X) / 30 + 1

    known = Known((None, sizes), over)
    first, second = asked(Surrogate(WIDE, population=20, rng=np.random.default_rng(0), known=known), 2, over)
    assert over(second).mean() < over(first).mean()
    assert over(np.concatenate([first, second])).min() == 1


def test_a_limit_that_is_only_told_is_learned() -> None:
    def over(X: IntArray) -> FloatArray:
        return np.maximum(sizes(X) / 40 - 1, 0)

    first, *_, last = asked(Surrogate(WIDE, population=20, rng=np.random.default_rng(0)), 4, over)
    assert (over(first) == 0).mean() < 0.6
    assert (over(last) == 0).mean() > 0.8


def test_a_search_that_is_told_again_what_it_heard_goes_on_bit_for_bit() -> None:
    first = Surrogate(WIDE, population=10, rng=np.random.default_rng(5), known=CHEAP)
    rows = asked(first, 4)
    again = Surrogate(WIDE, population=10, rng=np.random.default_rng(5), known=CHEAP)
    for X in rows:
        np.testing.assert_array_equal(again.ask(), X)
        again.tell(X, both(X), free(X))
    np.testing.assert_array_equal(again.ask(), first.ask())


def test_a_space_too_large_to_enumerate_is_still_asked_whole() -> None:
    genes = tuple(Gene(f"bit{i}", (0, 1)) for i in range(13))
    known = Known((lambda X: X.sum(1) * 1.0,), free)
    algorithm = Surrogate(genes, population=3000, rng=np.random.default_rng(0), known=known)
    rows = []
    while len(X := algorithm.ask()):
        rows.append(X)
        algorithm.tell(X, X.sum(1, keepdims=True) * 1.0, free(X))
    assert len(np.unique(np.concatenate(rows), axis=0)) == size(genes)


def test_rows_asked_before_any_are_told_are_new() -> None:
    algorithm = Surrogate(WIDE, population=10, rng=np.random.default_rng(0), known=CHEAP)
    assert len(np.unique(np.concatenate([algorithm.ask() for _ in range(3)]), axis=0)) == 30


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_a_feasible_row_without_finite_costs_is_an_error() -> None:
    algorithm = Surrogate(SMALL, population=1, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="violation inf"):
        algorithm.tell(algorithm.ask(), np.array([[np.nan, 1.0]]), np.zeros(1))


@pytest.mark.parametrize("costs", [np.zeros(4), np.zeros((3, 2))])
def test_costs_of_another_shape_are_an_error(costs: FloatArray) -> None:
    algorithm = Surrogate(SMALL, population=4, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="4 rows need costs"):
        algorithm.tell(algorithm.ask(), costs, np.zeros(4))


def test_more_objectives_than_are_known_are_an_error() -> None:
    algorithm = Surrogate(WIDE, population=4, rng=np.random.default_rng(0), known=CHEAP)
    with pytest.raises(ValueError, match="2 objectives are known, 3 were told"):
        algorithm.tell(algorithm.ask(), np.zeros((4, 3)), np.zeros(4))


def test_the_number_of_objectives_may_not_change() -> None:
    algorithm = Surrogate(SMALL, population=4, rng=np.random.default_rng(0))
    X = algorithm.ask()
    algorithm.tell(X, np.zeros((4, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="2 objectives were told before, now 3"):
        algorithm.tell(X, np.zeros((4, 3)), np.zeros(4))


def test_an_unknown_ranker_is_an_error_that_names_the_known_ones() -> None:
    algorithm = Surrogate(WIDE, population=20, rng=np.random.default_rng(0), ranker="oracle")
    with pytest.raises(LookupError, match="gaussian_process"):
        asked(algorithm, 2)
