"""One search for many devices: an algorithm a device, each with its own costs and limits, all told of everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.engine.algorithms import Algorithm
from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.objective import Costs


@dataclass(frozen=True, slots=True)
class Member:
    """One device's part in a search: an algorithm, the columns of its costs, and how far rows break its limits."""

    algorithm: Algorithm
    columns: tuple[int, ...]
    violation: Costs


class Fleet:
    """Asks the members in turn and tells all of them: an accuracy that one device pays for serves every other.

    Itself an algorithm over the costs of all members together. A row is worth evaluating where it keeps the limits of
    one member at least; `violation` says how far it is from that.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        if not members:
            raise ValueError("a fleet without members searches for nothing: give one a device")
        self._members = tuple(members)
        self._turn = 0

    def ask(self) -> IntArray:
        """Rows of the next member that has some; no rows when the space is used up."""
        rows = np.zeros((0, 0), dtype=np.int64)
        for _ in self._members:
            member = self._members[self._turn % len(self._members)]
            self._turn += 1
            rows = member.algorithm.ask()
            if len(rows):
                break
        return rows

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:  # noqa: ARG002  # each has its own
        """Tell every member its own costs and limits."""
        for member in self._members:
            member.algorithm.tell(X, costs[:, member.columns], member.violation(X))

    def violation(self, X: IntArray) -> FloatArray:
        """How far each row is from keeping all limits of the member that it suits best, (n,)."""
        return np.asarray(np.min([member.violation(X) for member in self._members], axis=0), dtype=np.float64)


def worst_share(costs: Sequence[Costs], largest: Sequence[float]) -> Costs:
    """The cost of a row on the device where it is worst, as a share of what the largest network costs there.

    `costs` and `largest` have one entry a device; shares make an accelerator and a phone comparable.
    """
    if len(costs) != len(largest) or not all(0 < value < np.inf for value in largest):
        raise ValueError(
            f"{len(costs)} devices, and their largest networks cost {list(largest)}: above 0, one a device"
        )
    return lambda X: np.asarray(
        np.max([cost(X) / value for cost, value in zip(costs, largest, strict=True)], axis=0), dtype=np.float64
    )
