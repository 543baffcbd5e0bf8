from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from hwnas.engine.architecture import FloatArray
from hwnas.engine.front import non_dominated
from hwnas.engine.noise import beaten, independent, most_uncertain_first, sure_front, surely_beats, tied

numbers = st.integers(0, 8).map(float)
noisy = st.tuples(st.integers(1, 10), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(arrays(np.float64, shape, elements=numbers), arrays(np.float64, shape, elements=numbers))
)


def front(costs: FloatArray, errors: FloatArray, confidence: float = 0.95) -> list[bool]:
    return sure_front(costs, independent(errors), confidence=confidence).tolist()


@given(noisy)
def test_without_noise_it_is_the_pareto_front(pair: tuple[FloatArray, FloatArray]) -> None:
    costs = pair[0]
    nothing = np.zeros_like(costs)
    assert front(costs, nothing) == non_dominated(costs).tolist()
    obvious = [[bool((a <= b).all() and (a < b).any()) for b in costs] for a in costs]
    assert surely_beats(costs, independent(nothing), confidence=0.95).tolist() == obvious


@given(noisy)
def test_there_is_always_a_front_and_only_of_rows_that_nothing_dominates(pair: tuple[FloatArray, FloatArray]) -> None:
    kept = np.array(front(*pair))
    assert kept.any()
    assert not (kept & ~non_dominated(pair[0])).any()


@given(noisy)
def test_a_row_leaves_the_front_only_for_one_that_stays_and_surely_beats_it(
    pair: tuple[FloatArray, FloatArray],
) -> None:
    costs, errors = pair
    z = norm.ppf(0.95)
    for j in np.flatnonzero(non_dominated(costs) & ~np.array(front(costs, errors))):
        better = []
        for i in np.flatnonzero(front(costs, errors)):
            noise = z * np.hypot(errors[i], errors[j])
            better.append(bool((costs[j] - costs[i] > noise).any() and (costs[i] - costs[j] <= noise).all()))
        assert any(better)


@given(noisy)
def test_the_order_of_the_rows_does_not_matter(pair: tuple[FloatArray, FloatArray]) -> None:
    costs, errors = pair
    order = np.random.default_rng(0).permutation(len(costs))
    assert front(costs[order], errors[order]) == np.array(front(costs, errors))[order].tolist()


def test_a_tenth_of_a_millisecond_inside_the_noise_makes_no_new_point() -> None:
    costs = np.array([[5.0, 0.20], [4.9, 0.25], [2.0, 0.30]])
    assert non_dominated(costs).all()
    assert front(costs, np.array([[0.1, 0.01]] * 3)) == [True, False, True]
    assert front(costs, np.array([[0.01, 0.01]] * 3)) == [True, True, True]


def test_a_chain_of_small_steps_does_not_fall_to_its_first() -> None:
    # each step is slower for sure and more accurate by less than the noise; three steps are more accurate for sure
    costs = np.array([[float(i), 0.30 - 0.01 * i] for i in range(7)])
    errors = np.array([[0.1, 0.0125]] * 7)
    assert front(costs, errors) == [True, False, False, True, False, False, True]


def test_an_accuracy_inside_the_noise_makes_no_new_point_where_it_costs_time() -> None:
    costs = np.array([[5.0, 0.200], [3.0, 0.203]])
    assert front(costs, np.array([[0.1, 0.01]] * 2)) == [False, True]


def test_rows_that_only_noise_tells_apart_stay_and_are_tied() -> None:
    costs = np.array([[5.0, 0.200], [4.9, 0.203], [2.0, 0.300]])
    errors = np.array([[0.1, 0.01]] * 3)
    assert front(costs, errors) == [True, True, True]
    assert np.argwhere(tied(costs, independent(errors), confidence=0.95)).tolist() == [[0, 1], [1, 0]]


def test_a_circle_of_rows_that_beat_each_other_stays() -> None:
    # each is a second ahead of the next in one objective and inside the noise behind it in the others
    costs = np.array([[0.0, 1.2, 0.8], [0.8, 0.0, 1.2], [1.2, 0.8, 0.0]])
    differences = np.full((3, 3, 3), 1.0 / norm.ppf(0.95))
    beats = surely_beats(costs, differences, confidence=0.95)
    assert beats.any(0).all()
    assert sure_front(costs, differences, confidence=0.95).all()


def test_errors_that_go_together_tell_more_apart() -> None:
    costs = np.array([[1.0], [1.1]])
    errors = np.array([[0.1], [0.1]])
    assert not surely_beats(costs, independent(errors), confidence=0.95).any()
    paired = np.full((2, 2, 1), 0.05)
    assert surely_beats(costs, paired, confidence=0.95).tolist() == [[False, True], [False, False]]


@given(noisy)
def test_the_chance_of_being_beaten_is_that_of_the_worst_rival(pair: tuple[FloatArray, FloatArray]) -> None:
    costs, errors = pair[0], pair[1] + 0.5
    found = beaten(costs, errors)
    for j in range(len(costs)):
        chances = [
            np.prod(norm.cdf((costs[j] - costs[i]) / np.hypot(errors[i], errors[j])))
            for i in range(len(costs))
            if i != j
        ]
        assert found[j] == pytest.approx(max(chances, default=0.0))


def test_the_chance_of_being_beaten_is_the_share_of_draws() -> None:
    rng = np.random.default_rng(0)
    costs, errors = np.array([[1.0, 2.0], [1.2, 1.9]]), np.array([[0.2, 0.3], [0.1, 0.2]])
    drawn = costs + errors * rng.standard_normal((200_000, 2, 2))
    assert beaten(costs, errors)[0] == pytest.approx((drawn[:, 1] < drawn[:, 0]).all(1).mean(), abs=0.005)


def test_a_toss_up_is_looked_at_first_and_what_is_surely_beaten_last() -> None:
    costs = np.array([[9.0, 9.0], [1.0, 1.0], [1.05, 1.05]])
    assert most_uncertain_first(costs, np.full((3, 2), 0.05)).tolist() == [2, 1, 0]


def test_nothing_has_no_front_and_no_order() -> None:
    nothing = np.zeros((0, 2))
    assert front(nothing, nothing) == []
    assert most_uncertain_first(nothing, nothing).tolist() == []
