"""What makes a search the same search: all that decides what it asks and what it is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwnas.engine.architecture import FloatArray, Gene, IntArray, sample
from hwnas.engine.objective import Constraint, Objective

PROBES = 64  # enough that nearly every option of every gene is in some of them


def _told(costs: FloatArray) -> str:
    """Digest of costs; nine digits, because machines round the last ones differently."""
    return hashlib.sha256(" ".join(f"{cost:.9g}" for cost in costs).encode()).hexdigest()[:16]


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

        Cheap objectives and limits are told by what they say of a few architectures: with another latency table it
        is another search. `context` says what the other costs depend on: digests of supernet and data, for example.
        `initial` are the algorithm's first rows; `earlier` names where evaluations that are told first come from.
        """
        probes = sample(genes, PROBES, np.random.default_rng(0))
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
                "costs": [_told(objective.costs(probes)) if objective.cheap else "" for objective in objectives],
                "limits": [[limit.name, limit.upper, _told(limit.costs(probes))] for limit in constraints],
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
