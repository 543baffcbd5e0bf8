from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.front import non_dominated
from hwnas.engine.labels import Tolerance, pareto, thinned, unbeaten


@st.composite
def rows(draw: st.DrawFn, *, most: int = 3) -> tuple[IntArray, FloatArray]:
    """States and costs with many ties."""
    n, objectives = draw(st.integers(1, 15)), draw(st.integers(1, most))
    states = draw(arrays(np.int64, n, elements=st.integers(0, 2)))
    return states, draw(arrays(np.float64, (n, objectives), elements=st.integers(-2, 3).map(float)))


@settings(deadline=None)
@given(rows(most=4))
def test_a_row_stays_unless_one_of_its_state_is_as_low_everywhere(labels: tuple[IntArray, FloatArray]) -> None:
    states, costs = labels
    kept = pareto(states, costs)
    whole = [(int(s), *c) for s, c in zip(states, costs.tolist(), strict=True)]
    obvious = {
        a for a in whole if not any(b[0] == a[0] and b != a and all(map(float.__le__, b[1:], a[1:])) for b in whole)
    }
    assert [whole[i] for i in kept] == sorted(obvious)
    assert all(whole.index(whole[i]) == i for i in kept)  # of equal rows the first


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("options", [3, 1000])
def test_of_many_rows_the_same_stay_as_of_each_state_alone(objectives: int, options: int) -> None:
    """A grid sorts most of many rows out; of few rows it is left out."""
    rng = np.random.default_rng(objectives)
    states, costs = rng.integers(0, 4, 3000), rng.integers(0, options, (3000, objectives)).astype(float)
    by_state = [np.unique(costs[states == state], axis=0) for state in range(4)]
    assert costs[pareto(states, costs)].tolist() == np.concatenate([c[non_dominated(c)] for c in by_state]).tolist()


@settings(deadline=None)
@given(rows(most=2), st.integers(0, 2**32 - 1))
def test_who_beats_others_answers_for_what_they_stood_for(labels: tuple[IntArray, FloatArray], seed: int) -> None:
    states, costs = labels
    if costs.shape[1] != 2:
        return
    given_away = np.random.default_rng(seed).random(len(states))
    kept, after = unbeaten(states, costs, given_away)
    assert kept.tolist() == pareto(states, costs).tolist()
    for state, cost, before in zip(states, costs, given_away, strict=True):
        answers = (costs[kept] - cost).max(1) + before <= after + 1e-12
        assert (answers & (states[kept] == state)).any()


@settings(deadline=None)
@given(rows(), st.integers(0, 2**32 - 1), st.sampled_from([0.3, 1.0]))
def test_every_row_has_one_that_stands_for_it_within_what_may_be_given(
    labels: tuple[IntArray, FloatArray], seed: int, most: float
) -> None:
    states, costs = labels
    rng = np.random.default_rng(seed)
    scaled, limited = costs * rng.choice([0.1, 0.3, 1.0]), rng.integers(0, 2, (len(costs), 1)).astype(float)
    before = rng.random(len(states)) * most
    kept, after = thinned(states, scaled, limited, before, most=most)
    assert (after <= most).all()
    for i in range(len(states)):
        answers = (scaled[kept] - scaled[i]).max(1) + before[i] <= after + 1e-12
        assert (answers & (states[kept] == states[i]) & (limited[kept] <= limited[i]).all(1)).any()


def test_many_rows_close_to_each_other_are_one() -> None:
    scaled = np.random.default_rng(0).random((1000, 3)) * 0.4
    kept, _ = thinned(np.zeros(1000, dtype=np.int64), scaled, np.zeros((1000, 0)), np.zeros(1000), most=1.0)
    assert len(kept) == 1


def test_one_on_the_scale_is_a_factor_of_a_positive_cost_and_a_share_of_the_range_of_another() -> None:
    tolerance = Tolerance.of(0.1, lowest=np.array([2.0, -1.0]), highest=np.array([8.0, 3.0]))
    low, high = tolerance.scaled(np.array([[2.0, 0.0], [2.2, 0.4]]))
    assert high - low == pytest.approx([1, 1])
