from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Gene
from hwnas.engine.conflict import NamedLimit, conflict

GENES = (Gene("a", (0, 1, 2)), Gene("b", (0, 1, 2)))


def cost(*options: Sequence[float]) -> AdditiveCost:
    return AdditiveCost(GENES, ((0,), (1,)), tuple(map(np.array, options)))


LATENCY = cost([1.0, 2.0, 4.0], [1.0, 2.0, 4.0])
MACS = cost([9.0, 5.0, 1.0], [9.0, 5.0, 1.0])
PARAMS = cost([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])


def latency(upper: float) -> NamedLimit:
    return NamedLimit("latency_ms", "ms", LATENCY, upper)


def macs(upper: float) -> NamedLimit:
    return NamedLimit("macs", "MACs", MACS, upper)


def test_limits_that_a_subnet_keeps_are_no_conflict() -> None:
    assert conflict([latency(4), macs(10)]) is None
    assert conflict([]) is None


def test_two_limits_that_exclude_each_other_say_how_near_one_comes() -> None:
    found = conflict([latency(3), macs(10)])
    assert str(found) == (
        "no subnet keeps latency_ms <= 3 ms and macs <= 10 MACs at once: within the other the lowest latency_ms is "
        "4 ms and the lowest macs is 14 MACs: raise one of them or widen the space"
    )


def test_a_limit_that_excludes_everything_alone_is_named_alone() -> None:
    found = conflict([macs(18), latency(1.5)])
    assert str(found) == (
        "no subnet keeps latency_ms <= 1.5 ms: the lowest latency_ms is 2 ms: raise the limit or widen the space"
    )
    assert found is not None
    assert found.nearest == (((0, 0), 2.0),)


def test_a_limit_that_is_not_to_blame_is_not_named() -> None:
    found = conflict([NamedLimit("params", "parameters", PARAMS, 3), latency(3), macs(10)])
    assert found is not None
    assert [limit.name for limit in found.limits] == ["latency_ms", "macs"]


def test_three_limits_may_exclude_each_other_where_no_two_do() -> None:
    limits = [latency(4), macs(10), NamedLimit("params", "parameters", cost([0.0, 3.0, 0.0], [0.0] * 3), 2)]
    assert all(conflict(limits[:i] + limits[i + 1 :]) is None for i in range(3))
    assert "within the others" in str(conflict(limits))


@pytest.mark.parametrize(("upper", "feasible"), [(4.6, True), (4.4, False)])
def test_a_limit_on_a_corrected_sum_is_turned_into_one_on_the_sum(upper: float, feasible: bool) -> None:
    corrected = NamedLimit("latency_ms", "ms", LATENCY, upper, shown=lambda sums: 0.5 + sums)
    found = conflict([corrected, macs(10)])
    assert (found is None) == feasible
    if found is not None:
        assert "the lowest latency_ms is 4.5 ms" in str(found)


def test_blocks_that_failed_are_named_as_the_cause() -> None:
    failed = cost([np.inf] * 3, [0.0] * 3)
    found = conflict([NamedLimit("latency_ms", "ms", failed, 1e12)])
    assert "blocks that failed" in str(found)
