from __future__ import annotations

import numpy as np
import pytest

from hwnas.engine.objective import Constraint, Objective, violation

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
