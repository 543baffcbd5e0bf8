"""What makes a search the same search: all that decides what it asks and what it is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwnas.engine.architecture import Gene, IntArray
from hwnas.engine.objective import Constraint, Objective


@dataclass(frozen=True, slots=True)
class SearchIdentity:
    """The settings of a search. How many candidates it evaluates is none of them: a search can be prolonged."""

    settings: Mapping[str, Any]  # JSON

    @classmethod
    def of(
        cls,
        algorithm: str,
        genes: Sequence[Gene],
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        *,
        population: int,
        seed: int | Sequence[int],
        context: str,
        initial: IntArray | None = None,
        earlier: str = "",
    ) -> SearchIdentity:
        """Of a search with these arguments.

        `context` says what the costs depend on: digests of supernet, data and latency table, for example. `initial`
        are the algorithm's first rows; `earlier` names where evaluations that are told first come from.
        """
        first = b"" if initial is None else np.ascontiguousarray(initial, dtype="<i8").tobytes()
        return cls(
            {
                "algorithm": algorithm,
                "genes": [
                    {
                        "name": gene.name,
                        "options": list(gene.options),
                        "needs": None if gene.needs is None else [gene.needs[0], sorted(gene.needs[1])],
                        "choices": gene.choices.tolist(),
                    }
                    for gene in genes
                ],
                "objectives": [objective.name for objective in objectives],
                "limits": [[constraint.name, constraint.upper] for constraint in constraints],
                "population": population,
                "seed": seed if isinstance(seed, int) else list(seed),
                "context": context,
                "initial": hashlib.sha256(first).hexdigest() if first else "",
                "earlier": earlier,
            }
        )

    @property
    def text(self) -> str:
        """The settings in one form, JSON."""
        return json.dumps(self.settings, sort_keys=True)

    @property
    def digest(self) -> str:
        """64 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()
