"""Random search: the line that every other algorithm has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwnas.engine.algorithms import Known
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.asked import Asked
from hwnas.engine.genome import Genome


class Random:
    """Every gene uniform over its choices, no architecture twice. It learns nothing but what not to repeat."""

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

    def ask(self) -> IntArray:
        """Fresh rows; fewer, then none, when the space is used up."""
        rows = self._asked.initial()
        return np.concatenate([rows, self._asked.fresh(self._asked.batch - len(rows))])

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:  # noqa: ARG002
        """Remember the rows."""
        self._asked.add(self._asked.keys(self._genome.check(X)))


algorithm = Random
