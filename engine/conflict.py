"""Limits that no architecture keeps at once: which, and how near one comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Architecture, FloatArray
from hwnas.engine.exact import Limit, least


@dataclass(frozen=True, slots=True)
class NamedLimit:
    """An upper limit on what a person calls `name`: an additive cost, or what `shown` makes of it, never falling."""

    name: str
    unit: str
    cost: AdditiveCost
    upper: float
    shown: Callable[[FloatArray], FloatArray] | None = None  # sums (n,) -> what the limit is about (n,)

    def of(self, total: float) -> float:
        """What a sum means."""
        return total if self.shown is None else float(self.shown(np.array([total]))[0])

    def additive(self) -> Limit:
        """The same limit on the sum: the highest sum that `shown` leaves within it, to the last bit or two."""
        if self.shown is None:
            return Limit(self.cost, self.upper)
        _, low = self.cost.minimum()
        _, negative = AdditiveCost(
            self.cost.genes, self.cost.scopes, tuple(map(_highest_first, self.cost.arrays))
        ).minimum()
        high = -negative
        if not np.isfinite(low) or self.of(low) > self.upper:
            return Limit(self.cost, -np.inf)
        if self.of(high) <= self.upper:
            return Limit(self.cost, high)
        while low < (middle := (low + high) / 2) < high:
            low, high = (middle, high) if self.of(middle) <= self.upper else (low, middle)
        return Limit(self.cost, low)

    def __str__(self) -> str:
        return f"{self.name} <= {self.upper:g} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Conflict:
    """The fewest limits that no architecture keeps at once."""

    limits: tuple[NamedLimit, ...]
    nearest: tuple[tuple[Architecture, float], ...]  # the lowest of each, within the others; () if barred

    def __str__(self) -> str:
        at_once = " at once" if len(self.limits) > 1 else ""
        names = " and ".join(map(str, self.limits))
        if not self.nearest:
            return (
                f"no subnet keeps {names}{at_once}: the others hold blocks that failed on the device: widen the space"
            )
        within = "within the others " if len(self.limits) > 2 else "within the other " if at_once else ""
        lowest = " and ".join(
            f"the lowest {limit.name} is {value:.4g} {limit.unit}".rstrip()
            for limit, (_, value) in zip(self.limits, self.nearest, strict=True)
        )
        return (
            f"no subnet keeps {names}{at_once}: {within}{lowest}: raise "
            f"{'one of them' if at_once else 'the limit'} or widen the space"
        )


def conflict(limits: Sequence[NamedLimit]) -> Conflict | None:
    """Which of the limits, the fewest, exclude each other; None where some architecture keeps all. Exact."""
    bounds = [limit.additive() for limit in limits]
    if not limits or least(limits[0].cost, limits=bounds) is not None:
        return None
    for size in range(1, len(limits) + 1):
        for group in combinations(range(len(limits)), size):
            if least(limits[group[0]].cost, limits=[bounds[i] for i in group]) is None:
                nearest = []
                for i in group:
                    found = least(limits[i].cost, limits=[bounds[j] for j in group if j != i])
                    if found is None:  # what keeps the others has no finite cost
                        return Conflict(tuple(limits[i] for i in group), ())
                    nearest.append((found[0], limits[i].of(found[1])))
                return Conflict(tuple(limits[i] for i in group), tuple(nearest))
    return None


def _highest_first(array: FloatArray) -> FloatArray:
    """Negative costs, with what is barred still barred."""
    return np.where(np.isfinite(array), -array, np.inf)
