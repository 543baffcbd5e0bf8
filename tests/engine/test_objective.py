from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwnas.engine.architecture import Gene
from hwnas.engine.objective import Constraint, Objective, ObjectiveError, objective_of, violation

X = np.array([[1], [2], [4]])


def test_a_gain_is_shown_as_a_gain() -> None:
    accuracy = Objective("accuracy", "", lambda X: 1 - X[:, 0] / 8, maximised=True)
    assert accuracy.shown(accuracy.costs(X)) == pytest.approx([1 / 8, 2 / 8, 4 / 8])


def test_a_cost_is_shown_as_it_is() -> None:
    latency = Objective("latency", "ms", lambda X: X[:, 0] * 1.0)
    assert latency.shown(latency.costs(X)) == pytest.approx([1, 2, 4])


def test_a_limit_that_is_just_met_is_not_violated() -> None:
    limit = Constraint("latency", "ms", lambda X: X[:, 0] * 1.0, upper=2)
    assert violation([limit], X) == pytest.approx([0, 0, 1])


def test_violations_are_relative_and_add_up() -> None:
    limits = [
        Constraint("latency", "ms", lambda X: X[:, 0] * 1.0, upper=1),
        Constraint("memory", "MiB", lambda X: X[:, 0] * 100.0, upper=200),
    ]
    assert violation(limits, X) == pytest.approx([0, 1, 3 + 1])


def test_without_limits_nothing_is_violated() -> None:
    assert violation([], X) == pytest.approx([0, 0, 0])


@pytest.mark.parametrize("upper", [np.nan, np.inf])
def test_a_limit_is_a_finite_number(upper: float) -> None:
    with pytest.raises(ValueError, match="limit on latency"):
        Constraint("latency", "ms", lambda X: X[:, 0] * 1.0, upper=upper)


# ---- functions as objectives ----------------------------------------------------------------------------------------

GENES = (Gene("depth", (10, 20, 30, 40, 50)),)


def test_a_function_is_an_objective_whether_it_takes_one_architecture_or_many() -> None:
    of_many = objective_of("depth", lambda X: X[:, 0] * 10 + 10)
    of_one = objective_of("depth", lambda architecture: architecture[0] * 10 + 10, vectorised=False)
    of_options = objective_of("depth", lambda values: values["depth"], vectorised=False, genes=GENES)
    for objective in (of_many, of_one, of_options):
        assert objective.costs(X).tolist() == [20, 30, 50]


def test_a_gain_is_declared_and_never_negated_by_who_writes_it() -> None:
    gain = objective_of("f1", lambda X: X[:, 0] / 8, maximised=True)
    assert gain.costs(X).tolist() == [1 - 1 / 8, 1 - 2 / 8, 1 - 4 / 8]
    assert gain.shown(gain.costs(X)).tolist() == [1 / 8, 2 / 8, 4 / 8]


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (lambda X: X[:2, 0], r"'speed' answered with shape \(2,\) for 3 architectures: return 3 numbers"),
        (lambda X: 1.0, r"'speed' answered with shape \(\)"),
        (lambda X: X * 1.0, r"'speed' answered with shape \(3, 1\)"),
        (lambda X: [1.0, float("nan"), 2.0], r"'speed' is nan for \[2\]: return a finite number"),
        (lambda X: np.array([1, np.inf, 2]), r"'speed' is inf for \[2\]"),
        (lambda X: ["fast", "slow", "slow"], r"'speed' answered with \['fast', 'slow', 'slow'\], not with numbers"),
        (lambda X: None, r"'speed' answered with None, not with numbers"),
        (lambda X: [1, [2, 3], 4], r"'speed' answered with \[1, \[2, 3\], 4\], not with numbers"),
        (lambda X: 1 / 0, r"'speed' failed on these architectures: ZeroDivisionError"),
    ],
)
def test_an_answer_that_is_no_number_a_row_names_the_objective(function: Any, complaint: str) -> None:
    with pytest.raises(ObjectiveError, match=complaint):
        objective_of("speed", function).costs(X)


def test_a_failure_on_one_architecture_names_it() -> None:
    def picky(architecture: tuple[int, ...]) -> float:
        return 1 / (architecture[0] - 2)

    with pytest.raises(ObjectiveError, match=r"'speed' failed on \[2\]: ZeroDivisionError"):
        objective_of("speed", picky, vectorised=False).costs(X)


def test_a_function_cannot_change_the_population() -> None:
    def careless(X: Any) -> Any:
        X[:] = 0
        return X[:, 0]

    before = X.copy()
    objective_of("speed", careless).costs(X)
    assert (before == X).all()
