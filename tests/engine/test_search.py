"""The search loop with and without a record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hwnas.engine import algorithms
from hwnas.engine.architecture import FloatArray, IntArray, size
from hwnas.engine.objective import Constraint, Objective, ObjectiveError
from hwnas.engine.search import Evaluated, search
from tests.engine.searches import GENES, LIMIT, OBJECTIVES, equal, searched


def _with(costs: Callable[[IntArray], object], *, cheap: bool = False) -> tuple[Objective, ...]:
    return OBJECTIVES[0], Objective("mine", "", costs, cheap=cheap)  # type: ignore[arg-type]  # wrong on purpose


# ---- the loop -------------------------------------------------------------------------------------------------------


def test_it_stops_at_the_number_of_evaluations_in_the_middle_of_a_round() -> None:
    assert len(searched(evaluations=21)) == 21


def test_it_stops_when_the_space_is_used_up() -> None:
    assert len(searched(evaluations=10 * size(GENES), algorithm="random")) == size(GENES)


def test_nothing_is_asked_for_beyond_the_budget() -> None:
    class Once:
        asks = 0

        def ask(self) -> IntArray:
            self.asks += 1
            return np.zeros((4, len(GENES)), dtype=np.int64)

        def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None: ...

    algorithm = Once()
    search(algorithm, OBJECTIVES, evaluations=4)
    assert algorithm.asks == 1


def test_candidates_that_break_a_limit_are_not_evaluated() -> None:
    seen: list[IntArray] = []

    def costs(X: IntArray) -> FloatArray:
        seen.append(X)
        return X.sum(1) * 1.0

    evaluated = searched(objectives=_with(costs), constraints=(LIMIT,))
    assert (LIMIT.costs(np.concatenate(seen)) <= LIMIT.upper).all()
    assert len(np.concatenate(seen)) == len(evaluated.feasible) < len(evaluated)
    assert np.isnan(evaluated.costs[evaluated.violation > 0]).all()


def test_what_was_told_before_does_not_change_later() -> None:
    told: list[tuple[Evaluated, Evaluated]] = []

    def keep(so_far: Evaluated) -> None:
        told.append((so_far, Evaluated(so_far.X.copy(), so_far.costs.copy(), so_far.violation.copy())))

    whole = searched(on_told=keep)
    assert [len(seen) for seen, _ in told] == [8, 16, 24, 32, 40]
    for seen, copied in told:
        equal(seen, copied)
    equal(told[-1][0], whole)


def test_earlier_rows_are_told_first_and_cost_no_evaluation() -> None:
    earlier = searched(evaluations=12, seed=5).X
    evaluated = searched(evaluations=24, earlier=earlier)
    assert (evaluated.X[:12] == earlier).all()
    assert len(evaluated) == 12 + 24
    assert len(np.unique(evaluated.X, axis=0)) == 36  # none of them was asked again


def test_an_empty_search_has_no_candidates() -> None:
    assert len(searched(evaluations=0)) == 0


# ---- objectives that fail -------------------------------------------------------------------------------------------


def _nan_at_the_third(X: IntArray) -> FloatArray:
    return np.where(np.arange(len(X)) == 2, np.nan, 1.0)


def _raises(X: IntArray) -> FloatArray:
    raise ZeroDivisionError("no data")


BAD: dict[str, tuple[Callable[[IntArray], object], str]] = {
    "nan": (_nan_at_the_third, r"'mine' is nan for \[\d, .*\], no finite number"),
    "infinite": (lambda X: np.full(len(X), np.inf), r"'mine' is inf for \[\d, .*\], no finite number"),
    "raises": (
        _raises,
        r"'mine' failed on 8 architectures, the first \[\d, .*\] "
        r"\(ZeroDivisionError: no data, test_search.py line \d+\)",
    ),
    "too short": (lambda X: np.zeros(len(X) - 1), r"'mine' answered with shape \(7,\) .* it must be \(8,\)"),
    "a column": (lambda X: np.zeros((len(X), 1)), r"'mine' answered with shape \(8, 1\)"),
    "a number": (lambda X: 1.0, r"'mine' answered with shape \(\)"),
    "text": (lambda X: ["0.5"] * len(X), r"'mine' answered .*0\.5.*, no numbers"),
    "nothing": (lambda X: None, r"'mine' answered 'None' .*, no numbers"),
}


@pytest.mark.parametrize("bad", BAD)
def test_an_objective_that_answers_no_numbers_is_named_with_the_architecture_and_the_cure(bad: str) -> None:
    costs, message = BAD[bad]
    with pytest.raises(ObjectiveError, match=f"objective {message}") as told:
        searched(objectives=_with(costs))
    assert "run the same search again" in str(told.value)
    assert "\n" not in str(told.value)


def test_an_error_of_our_own_passes_as_it_is(tmp_path: Path) -> None:
    from hwnas.engine.journal import Journal, JournalError

    (tmp_path / "j.sqlite").write_bytes(b"no journal" * 1000)
    with pytest.raises(JournalError, match="damaged or no journal"):
        searched(objectives=_with(lambda X: Journal(str(tmp_path / "j.sqlite"))))


def test_integers_and_lists_of_numbers_are_costs() -> None:
    def listed(X: IntArray) -> list[int]:
        return X.sum(1).tolist()  # type: ignore[no-any-return]

    evaluated = searched(objectives=_with(listed))
    assert (evaluated.costs[:, 1] == evaluated.X.sum(1)).all()


def test_a_limit_is_kept_by_every_front() -> None:
    evaluated = searched(constraints=(Constraint("sum", "", lambda X: X.sum(1) * 1.0, 4.0),))
    for layer in evaluated.layers():
        assert (evaluated.X[layer].sum(1) <= 4).all()


def test_every_algorithm_ends_when_nothing_is_feasible() -> None:
    never = Constraint("never", "", lambda X: np.ones(len(X)), 0.5)
    for name in algorithms.names():
        evaluated = searched(algorithm=name, constraints=(never,), evaluations=20)
        assert len(evaluated.feasible) == 0
