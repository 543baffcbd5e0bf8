"""Every architecture of a small space, in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwnas.engine.algorithms import Known
from hwnas.engine.architecture import FloatArray, Gene, IntArray, size
from hwnas.engine.asked import Asked
from hwnas.engine.genome import Genome


class Exhaustive:
    """All architectures, `population` at a time. Stop it when you like: nothing is enumerated in advance."""

    def __init__(
        self,
        genes: Sequence[Gene],
        *,
        population: int,
        rng: np.random.Generator,
        initial: IntArray | None = None,
        known: Known | None = None,  # noqa: ARG002
    ) -> None:
        self._genome = Genome.of(genes)
        self._asked = Asked(self._genome, batch=population, rng=rng, initial=initial)
        self._size = size(genes)
        self._next = 0

    def ask(self) -> IntArray:
        """The next rows; none after the last."""
        rows = self._asked.initial()
        while len(rows) < self._asked.batch and self._next < self._size:
            missing = self._asked.batch - len(rows)
            numbers = range(self._next, min(self._next + missing, self._size))
            self._next = numbers.stop
            rows = np.concatenate([rows, self._asked.new(self._genome.decode(numbers), at_most=missing)])
        return rows

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:  # noqa: ARG002
        """Remember the rows."""
        self._asked.add(self._asked.keys(self._genome.check(X)))


algorithm = Exhaustive
