"""What the exact algorithm asks beyond the contract that every algorithm keeps."""

from __future__ import annotations

import numpy as np

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms import Known, make
from hwnas.engine.architecture import FloatArray, Gene, IntArray, active
from hwnas.engine.exact import exact_front
from hwnas.engine.exact_search import additive_surrogate, optimality_gap
from hwnas.engine.objective import Constraint, Objective
from tests.engine.toy_spaces import GATED, every

GENES = (*GATED, *(Gene(f"width{i}", (8, 16, 24)) for i in range(4)))
MACS = AdditiveCost(
    GENES, tuple((i,) for i in range(len(GENES))), tuple(np.arange(1.0, len(g.options) + 1) for g in GENES)
)


def errors_of(X: IntArray) -> FloatArray:
    """Errors that fall with every option, each gene by another amount."""
    return np.asarray(0.9 - active(GENES, X) * (X + 1) @ np.linspace(0.01, 0.03, len(GENES)))


ERROR = Objective("accuracy", "", errors_of, maximised=True)
COST = Objective("macs", "MACs", MACS, cheap=True)


def asked(known: Known, *, rounds: int, population: int = 30) -> list[IntArray]:
    """What is asked round by round."""
    algorithm = make("exact", GENES, population=population, rng=np.random.default_rng(0), known=known)
    found = []
    for _ in range(rounds):
        X = algorithm.ask()
        over = known.violation(X)
        algorithm.tell(X, np.stack([errors_of(X), MACS(X)], axis=1), over)
        found.append(X)
    return found


def test_the_first_round_has_the_least_of_every_known_sum() -> None:
    first = asked(Known.of([ERROR, COST], sums=[None, MACS]), rounds=1)[0]
    assert first[0].tolist() == list(MACS.minimum()[0])
    assert len(first) == 30


def test_errors_told_bend_the_next_round_onto_the_true_front() -> None:
    rows = asked(Known.of([ERROR, COST], sums=[None, MACS]), rounds=2)
    whole = np.array(sorted(every(GENES)))
    true = exact_front([additive_surrogate(GENES, whole, errors_of(whole)), MACS])
    costs = [np.stack([errors_of(X), MACS(X)], axis=1) for X in (rows[0], np.concatenate(rows))]
    before, after = (optimality_gap(found, true.costs, (1.0, 40.0)) for found in costs)
    assert after > 0.99
    assert after > before


def test_costs_that_nobody_knows_to_be_sums_are_learned_too() -> None:
    rows = np.concatenate(asked(Known.of([ERROR, COST]), rounds=3))
    whole = np.array(sorted(every(GENES)))
    true = exact_front([additive_surrogate(GENES, whole, errors_of(whole)), MACS])
    assert optimality_gap(np.stack([errors_of(rows), MACS(rows)], axis=1), true.costs, (1.0, 40.0)) > 0.98


def test_rows_of_the_front_keep_the_limits() -> None:
    known = Known.of([ERROR, COST], [Constraint("macs", "MACs", MACS, 13.0)], sums=[None, MACS])
    last = asked(known, rounds=6, population=12)[-1]
    assert MACS(last).max() <= 13
