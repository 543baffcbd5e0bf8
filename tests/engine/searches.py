"""A small search that several tests run, with and without a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hwnas.engine import algorithms
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.identity import SearchIdentity
from hwnas.engine.journal import Journal
from hwnas.engine.objective import Constraint, Objective
from hwnas.engine.record import SearchRecord
from hwnas.engine.search import Evaluated, search

GENES = (
    Gene("depth", (1, 2, 3)),
    Gene("kernel1", (3, 5, 7)),
    Gene("kernel2", (3, 5, 7), needs=("depth", frozenset({1, 2}))),
    Gene("kernel3", (3, 5, 7), needs=("depth", frozenset({2}))),
    Gene("width", (8, 12, 16, 20, 24)),
    Gene("expansion", (2, 3, 4, 6)),
)
WEIGHTS = np.random.default_rng(7).normal(size=(len(GENES), 2))


# not X @ WEIGHTS: that rounds differently with the number of rows, and results are compared bit for bit


def error(X: IntArray) -> FloatArray:
    """A cost with an exact decimal in no row."""
    return np.asarray(1 / (3 + np.sin((X * WEIGHTS[:, 0]).sum(1))))


def milliseconds(X: IntArray) -> FloatArray:
    """A cost that pulls the other way."""
    return np.asarray(X.sum(1) / 7 + np.cos((X * WEIGHTS[:, 1]).sum(1)) / 9)


OBJECTIVES = (Objective("error", "", error), Objective("latency_ms", "ms", milliseconds, cheap=True))
LIMIT = Constraint("size", "", lambda X: X.sum(1) * 1.0, 7.0)


def identity(
    *,
    algorithm: str = "nsga2",
    population: int = 8,
    seed: int = 3,
    objectives: Sequence[Objective] = OBJECTIVES,
    constraints: Sequence[Constraint] = (),
    context: str = "supernet/data",
    earlier: str = "",
) -> SearchIdentity:
    return SearchIdentity.of(
        algorithm, GENES, objectives, constraints, population=population, seed=seed, context=context, earlier=earlier
    )


def searched(
    journal: Journal | None = None,
    *,
    algorithm: str = "nsga2",
    evaluations: int = 40,
    population: int = 8,
    seed: int = 3,
    objectives: Sequence[Objective] = OBJECTIVES,
    constraints: Sequence[Constraint] = (),
    on_told: Callable[[Evaluated], None] | None = None,
    earlier: IntArray | None = None,
    record: SearchRecord | None = None,
    batch: int = 1,
) -> Evaluated:
    """The search of these settings, recorded where there is a journal."""
    if journal is not None:
        made = identity(
            algorithm=algorithm,
            population=population,
            seed=seed,
            objectives=objectives,
            constraints=constraints,
            earlier="" if earlier is None else "elsewhere",
        )
        record = SearchRecord(journal, made, batch=batch)
    return search(
        algorithms.make(algorithm, GENES, population=population, rng=np.random.default_rng(seed)),
        objectives,
        evaluations=evaluations,
        constraints=constraints,
        on_told=on_told,
        record=record,
        earlier=earlier,
    )


def equal(first: Evaluated, second: Evaluated) -> None:
    """Both hold the same candidates in the same order with the same bits."""
    assert first.X.tolist() == second.X.tolist()
    assert first.costs.tobytes() == second.costs.tobytes()
    assert first.violation.tobytes() == second.violation.tobytes()
