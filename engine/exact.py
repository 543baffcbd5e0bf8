"""The exact front of additive costs: partial networks are extended slot by slot, beaten ones dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Architecture, FloatArray, IntArray, to_architecture
from hwnas.engine.cliques import Step, Walk
from hwnas.engine.labels import Tolerance, pareto, thinned, unbeaten

CHUNK = 1 << 19  # extensions looked at together: about 30 MB
CROWD = 20_000  # labels up to which an epsilon is saved for later steps


@dataclass(frozen=True, slots=True)
class Limit:
    """An upper limit on an additive cost."""

    cost: AdditiveCost
    upper: float

    def __post_init__(self) -> None:
        if np.isnan(self.upper):
            raise ValueError(f"a limit of {self.upper} bounds nothing: give a number")


@dataclass(frozen=True, slots=True)
class ExactFront:
    """Architectures that no other of the space beats, sorted by their costs; of equal ones the first found."""

    X: IntArray  # (n, genes), canonical
    costs: FloatArray  # (n, objectives)
    labels: int  # the most partial networks that were kept at once

    def __len__(self) -> int:
        return len(self.X)


def exact_front(
    costs: Sequence[AdditiveCost], *, limits: Sequence[Limit] = (), epsilon: float = 0.0, most: int = 10_000_000
) -> ExactFront:
    """The Pareto front of `costs` over all architectures of the space that keep the limits.

    Infinite entries (blocks that failed) and NaN ones bar what uses them. Where nothing keeps the limits the front is
    empty. Time and memory grow with the partial networks that no other beats, not with the space; more than `most`
    of them raise ValueError.

    With an `epsilon` above 0 fewer points come back: for every point of the true front there is one within the
    limits whose every cost is at most 1 + epsilon times as high. A cost that is 0 or below somewhere in the space has
    no such factor: there it is at most epsilon times the cost's range over the space higher.

    Label setting (Martins, European Journal of Operational Research 16, 1984) over a variable elimination (Dechter,
    Artificial Intelligence 113, 1999): of two partial networks between which no later slot can tell, a beaten one is
    dropped. What a label gives away for epsilon is told from the best that it stands for, so that it does not add up
    over the slots as it does where each slot rounds (Warburton, Operations Research 35, 1987).
    """
    if not costs:
        raise ValueError("a front needs at least one cost")
    if not 0 <= epsilon < np.inf:
        raise ValueError(f"epsilon is {epsilon}: give 0 for the exact front, or a share such as 0.01")
    # dominance holds a limit on one of the costs; thinning may raise that cost, and then the limit is a column too
    beside = [limit for limit in limits if epsilon > 0 or all(limit.cost is not cost for cost in costs)]
    upper = [min([limit.upper for limit in limits if limit.cost is cost], default=np.inf) for cost in costs]
    upper += [min(limit.upper, float(np.finfo(np.float64).max)) for limit in beside]  # differences must stay numbers
    walk = Walk.of([*costs, *(limit.cost for limit in beside)])
    X, labels = _Search.of(walk, np.array(upper), objectives=len(costs), epsilon=epsilon, most=most).rows()
    found = np.stack([cost(X) for cost in costs], axis=1)
    order = pareto(np.zeros(len(X), dtype=np.int64), found)
    return ExactFront(X[order], found[order], labels)


def least(cost: AdditiveCost, *, limits: Sequence[Limit] = ()) -> tuple[Architecture, float] | None:
    """The cheapest architecture that keeps all limits at once, and its cost, exactly; None where none keeps them."""
    front = exact_front([cost], limits=limits)
    return (to_architecture(front.X[0]), float(front.costs[0, 0])) if len(front) else None


@dataclass(frozen=True, slots=True)
class _Labels:
    """Partial networks; each remembers which label it extends and how, so that its genes can be told."""

    states: IntArray  # (n,) the genes that later steps need, as one number
    costs: FloatArray  # (n, columns)
    given: FloatArray  # (n,) what it gives away of the tolerance
    parents: IntArray  # (n,)
    ways: IntArray  # (n,)

    def take(self, rows: IntArray) -> _Labels:
        return _Labels(*(getattr(self, name)[rows] for name in ("states", "costs", "given", "parents", "ways")))


@dataclass(frozen=True, slots=True)
class _Search:
    walk: Walk
    upper: FloatArray  # (columns,)
    objectives: int  # the first columns; the others are limits
    least: list[FloatArray]  # of each step: what it and all later ones add, (states, columns)
    greatest: list[FloatArray]
    tolerance: Tolerance | None
    most: int

    @classmethod
    def of(cls, walk: Walk, upper: FloatArray, *, objectives: int, epsilon: float, most: int) -> _Search:
        lowest, highest = (
            [bounds.reshape(-1, len(upper)) for bounds in walk.to_go(greatest=greatest)] for greatest in (False, True)
        )
        ends = lowest[0][0, :objectives], highest[0][0, :objectives]
        tolerance = Tolerance.of(epsilon, lowest=ends[0], highest=ends[1]) if epsilon > 0 else None
        return cls(walk, upper + walk.rounding, objectives, lowest, highest, tolerance, most)

    def rows(self) -> tuple[IntArray, int]:
        """The architectures whose labels are left at the end, (n, genes), and the most labels held at once."""
        nothing = np.zeros(1, dtype=np.int64)
        labels = _Labels(nothing, np.zeros((1, len(self.upper))), np.zeros(1), nothing, nothing)
        trail: list[tuple[Step, IntArray, IntArray]] = []
        peak = 0
        for k, whole in enumerate(self.walk.steps):
            step = _unbeaten(self.walk, whole)
            parts = [self._kept(k + 1, part) for part in _extensions(self.walk, step, labels)]
            labels = _joined(parts)
            if len(parts) > 1:
                labels = self._kept(k + 1, labels)
            peak = max(peak, len(labels.states))
            trail.append((step, labels.parents.astype(np.int32), labels.ways.astype(np.int32)))
        X = np.zeros((len(labels.states), len(self.walk.genes)), dtype=np.int64)
        at = np.arange(len(X))
        for step, parents, ways in reversed(trail):
            X[:, step.genes] = step.rows[ways[at]]
            at = parents[at]
        return X, peak

    def _kept(self, k: int, labels: _Labels) -> _Labels:
        """The labels before step `k` that may still end on the front."""
        bounds = labels.costs + self.least[k][labels.states]
        possible = np.isfinite(bounds).all(1) & (bounds <= self.upper).all(1)
        if not possible.all():
            labels, bounds = labels.take(np.flatnonzero(possible)), bounds[possible]
        # a limit that every way to go on keeps tells no label from another
        spent = float(labels.given.max(initial=0))
        room = self.upper[self.objectives :] - self.greatest[k][labels.states, self.objectives :]
        limited = np.maximum(labels.costs[:, self.objectives :], room)
        scaled = None if self.tolerance is None else self.tolerance.scaled(bounds[:, : self.objectives])
        given = labels.given
        if scaled is not None and given.any():
            rows = np.arange(len(given))
            if scaled.shape[1] == 2 and limited.shape[1] == 0:
                rows, given = unbeaten(labels.states, scaled, given)
        else:
            rows = pareto(labels.states, np.hstack([labels.costs[:, : self.objectives], limited]))
            given = given[rows]
        if scaled is not None and (len(rows) > CROWD or k == len(self.walk.steps)) and len(rows):
            most = spent + (1 - spent) / (len(self.walk.steps) + 1 - k)
            left, given = thinned(labels.states[rows], scaled[rows], limited[rows], given, most=most)
            rows = rows[left]
        kept = replace(labels.take(rows), given=given)
        if len(kept.states) > self.most:
            raise ValueError(
                f"{len(kept.states):,} partial networks at step {k} of {len(self.walk.steps)} are not beaten by "
                f"others, more than most = {self.most:,}: give epsilon, tighter limits or fewer costs"
            )
        return kept


def _unbeaten(walk: Walk, step: Step) -> Step:
    """The step without ways that another one beats whatever the rest."""
    shared = walk.numbers(step.columns(step.shared), step.shared)
    ways = pareto(shared, step.costs)
    return Step(step.genes, step.rows[ways], step.costs[ways], step.before, step.after)


def _extensions(walk: Walk, step: Step, labels: _Labels) -> Iterator[_Labels]:
    """Every label extended in every way that fits its state, `CHUNK` or little more at a time."""
    old = tuple(gene for gene in step.shared if gene in step.before)
    carried = tuple(gene for gene in step.after if gene in step.before)
    new = tuple(gene for gene in step.after if gene not in step.before)
    options = walk.options(step.before)  # (states, genes of `before`)
    column = {gene: i for i, gene in enumerate(step.before)}
    met = walk.numbers(options[:, [column[gene] for gene in old]], old)[labels.states]
    base = walk.numbers(options[:, [column[gene] for gene in carried]], carried, within=step.after)[labels.states]
    fits = walk.numbers(step.columns(old), old)
    order = np.argsort(fits, kind="stable")
    added = walk.numbers(step.columns(new), new, within=step.after)[order]
    costs = step.costs[order]
    starts = np.searchsorted(fits[order], met, side="left")
    counts = np.searchsorted(fits[order], met, side="right") - starts
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(CHUNK, ends[-1] if len(ends) else 0, CHUNK), side="left") + 1
    for a, b in pairwise([0, *np.unique(cuts[cuts < len(counts)]).tolist(), len(counts)]):
        parents = np.repeat(np.arange(a, b), counts[a:b])
        behind = np.cumsum(counts[a:b]) - counts[a:b]
        ways = np.arange(len(parents)) - np.repeat(behind - starts[a:b], counts[a:b])
        yield _Labels(
            base[parents] + added[ways],
            labels.costs[parents] + costs[ways],
            labels.given[parents],
            parents,
            order[ways],
        )


def _joined(parts: Sequence[_Labels]) -> _Labels:
    if len(parts) == 1:
        return parts[0]
    names = ("states", "costs", "given", "parents", "ways")
    return _Labels(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
