from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from hwnas.engine import algorithms
from hwnas.engine.algorithms import Known
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.fleet import Fleet, Member, worst_share
from hwnas.engine.front import non_dominated
from hwnas.engine.objective import Constraint, Objective, violation
from hwnas.engine.search import Evaluated, search

GENES = tuple(Gene(f"g{i}", tuple(range(4))) for i in range(8))
PRICES = np.random.default_rng(3).random((3, 8)) + 0.1  # of an option's step, a row a device


def error(X: IntArray) -> FloatArray:
    return np.asarray(np.exp(-X.sum(1) / 8.0))


def latency(device: int, X: IntArray) -> FloatArray:
    return np.asarray(1 + X @ PRICES[device])


def objectives(devices: range) -> list[Objective]:
    priced = [Objective(f"latency_ms@d{d}", "ms", partial(latency, d), cheap=True) for d in devices]
    return [Objective("accuracy", "", error, maximised=True), *priced]


def fleet(uppers: tuple[float, float, float] = (99.0, 99.0, 99.0), *, name: str = "nsga2") -> Fleet:
    members = []
    for d in range(3):
        limits = [Constraint(f"latency_ms@d{d}", "ms", partial(latency, d), uppers[d])]
        own = [objectives(range(3))[0], objectives(range(3))[1 + d]]
        algorithm = algorithms.make(
            name, GENES, population=12, rng=np.random.default_rng(d), known=Known.of(own, limits)
        )
        members.append(Member(algorithm, (0, 1 + d), partial(violation, limits)))
    return Fleet(members)


def searched(algorithm: Fleet, evaluations: int = 360) -> Evaluated:
    anyone = Constraint("limits", "", lambda X: 1 + algorithm.violation(X), 1.0)
    return search(algorithm, objectives(range(3)), evaluations=evaluations, constraints=[anyone])


def test_no_subnet_is_evaluated_for_two_devices_apart() -> None:
    X = searched(fleet()).X
    assert len({tuple(row) for row in X.tolist()}) == len(X) == 360


def test_every_device_learns_from_what_was_evaluated_for_the_others() -> None:
    found = searched(fleet())
    everything = np.array(np.meshgrid(*[range(4)] * 8)).reshape(8, -1).T
    for d in range(3):
        true = np.stack([error(everything), latency(d, everything)], axis=1)
        best = true[non_dominated(true)]
        seen = found.costs[:, [0, 1 + d]]
        front = seen[non_dominated(seen)]
        near = [(front <= point + 0.05 * np.ptp(best, axis=0)).all(1).any() for point in best]
        assert np.mean(near) > 0.9


def test_a_row_is_evaluated_where_one_device_can_use_it() -> None:
    uppers = (4.0, 99.0, 99.0)
    found = searched(fleet(uppers))
    too_slow = latency(0, found.X) > 4.0
    assert too_slow.any()
    assert not np.isnan(found.costs[too_slow]).any()
    assert (~too_slow).sum() > 20


def test_a_row_that_no_device_can_use_is_not_evaluated() -> None:
    found = searched(fleet((3.0, 3.0, 3.0)))
    useless = np.min([latency(d, found.X) for d in range(3)], axis=0) > 3.0
    assert np.isnan(found.costs[useless]).all()
    assert not np.isnan(found.costs[~useless]).any()


def test_the_same_seeds_ask_the_same() -> None:
    assert (searched(fleet()).X == searched(fleet()).X).all()


def test_it_ends_when_the_space_is_used_up() -> None:
    genes = GENES[:2]
    members = [
        Member(
            algorithms.make("random", genes, population=5, rng=np.random.default_rng(d)), (0,), lambda X: 0.0 * X[:, 0]
        )
        for d in range(2)
    ]
    only = [Objective("sum", "", lambda X: X.sum(1).astype(float), cheap=True)]
    assert len(search(Fleet(members), only, evaluations=100).X) == 16


def test_the_worst_device_is_beside_its_own_largest_network() -> None:
    X = np.array([[1], [2], [3]])
    cost = worst_share([lambda X: 1.0 * X[:, 0], lambda X: 12.0 - X[:, 0]], [4.0, 20.0])
    assert cost(X).tolist() == pytest.approx([0.55, 0.5, 0.75])


@pytest.mark.parametrize("largest", [[1.0], [1.0, 0.0], [1.0, np.inf]])
def test_a_share_of_nothing_is_refused(largest: list[float]) -> None:
    with pytest.raises(ValueError, match="2 devices"):
        worst_share([lambda X: 1.0 * X[:, 0]] * 2, largest)


def test_a_fleet_has_members() -> None:
    with pytest.raises(ValueError, match="without members"):
        Fleet([])
