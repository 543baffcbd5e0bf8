from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.engine.additive import AdditiveCost, gates
from hwnas.engine.architecture import Gene, IntArray, active, sample
from hwnas.engine.exact import ExactFront
from hwnas.engine.exact_search import additive_surrogate, agreement, optimality_gap, seed_rows
from tests.engine.toy_spaces import GATED, every, gene_sets

GENES = (*GATED, *(Gene(f"width{i}", (8, 16, 24)) for i in range(4)))
MACS = AdditiveCost(
    GENES, tuple((i,) for i in range(len(GENES))), tuple(np.arange(1.0, len(g.options) + 1) for g in GENES)
)


def line(n: int) -> ExactFront:
    """A front of n points on a line, crowded at its left end."""
    along = np.linspace(0, 1, n) ** 3
    return ExactFront(np.arange(n)[:, None], np.stack([along, 5 - 5 * along], axis=1), n)


def errors_of(X: IntArray) -> np.ndarray:
    """Errors that fall with every option, each gene by another amount."""
    return 0.9 - active(GENES, X) * (X + 1) @ np.linspace(0.01, 0.03, len(GENES))


# ---- gates ----------------------------------------------------------------------------------------------------------


@given(gene_sets(), st.integers(0, 4))
def test_gates_tell_whether_a_gene_is_on(genes: tuple[Gene, ...], i: int) -> None:
    i %= len(genes)
    chain, on = gates(genes, i)
    X = np.array(sorted(every(genes)))
    assert (on[tuple(X[:, chain].T)] == active(genes, X)[:, i]).all()


# ---- seeds ----------------------------------------------------------------------------------------------------------


def test_seeds_hold_both_ends_and_lie_evenly_between() -> None:
    rows = seed_rows(line(1000), 5)[:, 0]
    along = np.linspace(0, 1, 1000)[rows] ** 3
    assert along == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.02)


def test_more_seeds_than_points_are_all_points() -> None:
    assert seed_rows(line(3), 5).tolist() == [[0], [1], [2]]


def test_one_seed_and_an_empty_front_are_no_trouble() -> None:
    assert len(seed_rows(line(10), 1)) == 1
    assert len(seed_rows(line(0), 4)) == 0


# ---- surrogates -----------------------------------------------------------------------------------------------------


def test_errors_that_are_sums_over_genes_are_found_again() -> None:
    X = sample(GENES, 300, np.random.default_rng(0))
    surrogate = additive_surrogate(GENES, X, errors_of(X))
    unseen = np.array(sorted(every(GENES)))
    assert surrogate(unseen) == pytest.approx(errors_of(unseen), abs=1e-4)


def test_a_gene_that_is_off_is_not_taken_for_its_first_option() -> None:
    """Both hold index 0; only the first of them costs anything here."""
    X = np.array(sorted(every(GATED)))
    kernel3 = active(GATED, X)[:, 3].astype(float)
    surrogate = additive_surrogate(GATED[:4], X[:, :4], kernel3)
    off, first = np.array([[1, 0, 0, 0]]), np.array([[2, 0, 0, 0]])
    assert surrogate(off)[0] == pytest.approx(0, abs=0.01)
    assert surrogate(first)[0] == pytest.approx(1, abs=0.01)


def test_scopes_let_the_surrogate_follow_what_is_no_sum_over_genes() -> None:
    X = sample(GENES, 400, np.random.default_rng(0))
    values = ((X[:, 5] == X[:, 6]) + 0.1 * X[:, 7]).astype(float)
    alone, joint = agreement(GENES, X, values), agreement(GENES, X, values, scopes=[(5, 6)])
    assert alone < 0.5
    assert joint > 0.8


def test_errors_that_have_nothing_to_do_with_the_genes_agree_with_nothing() -> None:
    rng = np.random.default_rng(0)
    X = sample(GENES, 300, rng)
    assert abs(agreement(GENES, X, rng.random(300))) < 0.15


def test_a_fit_of_what_is_not_finite_is_an_error() -> None:
    X = sample(GENES, 5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="5 rows with 4 finite values"):
        additive_surrogate(GENES, X, np.array([1.0, 2.0, np.nan, 1.0, 2.0]))


# ---- gaps -----------------------------------------------------------------------------------------------------------


def test_the_exact_front_has_all_of_its_hypervolume_and_a_part_has_its_part() -> None:
    exact = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    assert optimality_gap(exact, exact, (3, 3)) == 1
    assert optimality_gap(exact[:1], exact, (3, 3)) == pytest.approx(3 / 6)


def test_a_reference_below_the_front_is_an_error() -> None:
    with pytest.raises(ValueError, match="reference"):
        optimality_gap(np.zeros((1, 2)), np.ones((1, 2)), (0.5, 0.5))
