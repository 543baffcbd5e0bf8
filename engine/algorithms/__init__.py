"""The algorithm role: propose architectures, learn from their costs. One file an algorithm."""

from __future__ import annotations

from typing import Protocol

from hwnas.engine.architecture import FloatArray, IntArray


class Algorithm(Protocol):
    """Ask and tell over gene arrays. Seeded, so that the same tells give the same asks."""

    def ask(self) -> IntArray:
        """Canonical rows (n, genes), none of which was asked before; no rows when the space is used up."""
        ...

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:
        """Costs (n, objectives), minimised, and constraint violation (n,), 0 where feasible."""
        ...
