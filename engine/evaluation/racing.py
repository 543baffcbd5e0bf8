"""Racing: a candidate that a known one clearly beats is not evaluated on the rest of the images.

Candidate and rival answer the same images in a random order that is drawn anew for each race. An image that only one of
the two labels right is a coin that, if the candidate is at least as accurate on the whole split, falls for the rival
with a probability of at most one half whenever the rival leads: whatever has been drawn before leaves at least as many
images that speak for the candidate. A gambler who bets on the rival only while it leads therefore has a capital that
does not grow in expectation, and by Ville's inequality reaches 1 / error with a probability of at most `error`, however
often one looks (testing by betting: Shafer, JRSS A 184(2), 2021; without replacement: Waudby-Smith and Ramdas, NeurIPS
2020). The gambler splits the stake evenly over the rivals of a candidate, so the bound holds over all of them together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import log, sqrt

import numpy as np

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, BoolArray, FloatArray, IntArray
from hwnas.engine.evaluation.inherited import InheritedAccuracy
from hwnas.engine.evaluation.prefix import Parts
from hwnas.engine.front import non_dominated
from hwnas.engine.objective import Costs

PROBES = 64  # rows whose cheap costs tell one set of cheap costs from another


def log_capital(candidate: BoolArray, rival: BoolArray) -> float:
    """Logarithm of what a stake of 1 on `rival` has become after these images, (images,) each, in their order.

    Before each image that only one of the two labels right, with the rival ahead by r of the m before it, the share
    r / (m + 1) of the capital is bet (the estimate of Krichevsky and Trofimov, cut at no lead).
    """
    coins = rival.astype(np.int64) - candidate
    coins = coins[coins != 0]
    lead = np.cumsum(coins) - coins
    share = np.maximum(lead, 0) / np.arange(1, len(coins) + 1)
    return float(np.log1p(share * coins).sum())


def is_beaten(candidate: BoolArray, rivals: Sequence[BoolArray], *, error: float) -> bool:
    """Whether some rival is more accurate on the whole split, wrong with a probability of at most `error`.

    Each array says which images are labelled right, (images,), in one random order of the split. Wrong means: the
    candidate is at least as accurate as every one of them. The probability covers every look while images come in.
    """
    if not rivals:
        return False
    capitals = [log_capital(candidate, rival) for rival in rivals]
    return bool(np.logaddexp.reduce(capitals) - log(len(rivals)) >= -log(error))


def looks(images: int, first: int) -> list[int]:
    """Numbers of images after which a race is looked at: `first`, then twice as many each time, all at last."""
    found = [first]
    while 2 * found[-1] < images:
        found.append(2 * found[-1])
    return [*(n for n in found if n < images), images]


@dataclass(frozen=True, slots=True)
class Stopped:
    """What is known of a candidate that left a race early."""

    architecture: Architecture
    rival: Architecture
    images: int  # evaluated
    estimate: float  # of 1 - accuracy on the whole split
    deviation: float  # standard error of the estimate


@dataclass
class RacedAccuracy:
    """1 - validation accuracy as a cost, evaluated in full only for candidates that no known one clearly beats.

    A rival of a candidate is an architecture of an earlier call that was evaluated in full, is no worse in every
    `cheap` cost and is the most accurate of those, or among the `rivals` most accurate. For each candidate, the
    probability to be stopped although no rival is more accurate on the whole split is at most `error`. A stopped one
    costs its estimate, but at least one image more than the rival it lost to, so it stays dominated.

    Values of stopped candidates are journalled under a context of their own and never taken for accuracies; what was
    once told as stopped stays so. Repeating the calls in their order repeats the values, after an interruption too.
    """

    evaluator: InheritedAccuracy
    cheap: Sequence[Costs]
    error: float = 0.05
    rivals: int = 3
    first: int = 64  # images at the first look
    seed: int = 0
    on_stopped: Callable[[Stopped], None] | None = None
    _accuracies: dict[Architecture, float] = field(default_factory=dict, init=False)  # told in earlier calls
    _right: dict[Architecture, BoolArray] = field(default_factory=dict, init=False)  # of rivals, in the split's order
    _told: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.error < 1:
            raise ValueError(f"error is {self.error}: give the probability of a wrong stop, between 0 and 1")
        if self.rivals < 1 or self.first < 1:
            raise ValueError(f"rivals is {self.rivals} and first {self.first}: a race needs at least 1 of each")

    def context(self, evaluation: str) -> str:
        """What a stop depends on: the context of the evaluation, the settings of the race and the cheap costs."""
        genes = self.evaluator.space.genes
        probes = arch.sample(genes, PROBES, np.random.default_rng(0))
        digest = hashlib.sha256(repr((self.error, self.rivals, self.first, self.seed)).encode())
        digest.update(self._cheap(probes).tobytes())
        return f"{evaluation}/race{digest.hexdigest()[:16]}"

    def errors(self, X: IntArray) -> FloatArray:
        """1 - validation accuracy of each row, (n,); of a stopped row what it costs instead."""
        rows = [arch.to_architecture(row) for row in X]
        journal, full = self.evaluator.journal, self.evaluator.context
        raced = self.context(full)
        costs = journal.read(raced, "stopped", rows)
        known = journal.read(full, "accuracy", [row for row in rows if row not in costs])
        missing = [row for row in dict.fromkeys(rows) if row not in costs and row not in known]
        if missing:
            finished, stopped = self._race(missing, full, raced)
            known.update(finished)
            costs.update(stopped)
        self._accuracies.update(known)
        self._told += len(rows)
        costs.update({row: 1 - accuracy for row, accuracy in known.items()})
        return np.array([costs[row] for row in rows], dtype=float)

    def deviations(self, X: IntArray) -> FloatArray:
        """Standard error of each row's estimate of the accuracy on the split, (n,); 0 where all images were seen."""
        rows = [arch.to_architecture(row) for row in X]
        known = self.evaluator.journal.read(self.context(self.evaluator.context), "deviation", rows)
        return np.array([known.get(row, 0.0) for row in rows])

    def _race(
        self, rows: list[Architecture], full: str, raced: str
    ) -> tuple[dict[Architecture, float], dict[Architecture, float]]:
        """Accuracies of those that got through, costs of those that were stopped; journalled in the contexts."""
        split = self.evaluator.data.validation
        rivals = self._rivals(rows)
        # a new order for each race, or who is asked for would depend on the order in which it is then tested
        order = np.random.default_rng([self.seed, self._told]).permutation(len(split))
        right = {row: np.zeros(0, dtype=bool) for row in rows}
        running, seen = rows, 0
        held: dict[Architecture, Parts] = {}
        accuracies: dict[Architecture, float] = {}
        costs: dict[Architecture, float] = {}
        for look in looks(len(split), self.first if any(rivals.values()) else len(split)):
            for row, answers in self.evaluator.answers(running, split, order=order[seen:look], held=held):
                right[row] = np.concatenate([right[row], answers])
                if look == len(split):
                    accuracies[row] = self.evaluator.keep(full, row, right[row])
                    self._right[row] = right[row][np.argsort(order)]
            seen = look
            if look < len(split):
                for row in running:
                    against = {rival: self._right[rival][order[:look]] for rival in rivals[row]}
                    if is_beaten(right[row], list(against.values()), error=self.error):
                        costs[row] = self._stop(raced, row, right[row], against)
                        del held[row]
                running = [row for row in running if row not in costs]
            if not running:
                break
        return accuracies, costs

    def _rivals(self, rows: list[Architecture]) -> dict[Architecture, list[Architecture]]:
        """Whom each row has to beat; what these label right is known afterwards."""
        known = list(self._accuracies)
        if not known:
            return {row: [] for row in rows}
        losses = 1 - np.array([self._accuracies[row] for row in known])
        cheap = self._cheap(np.array(known))
        front = np.flatnonzero(non_dominated(np.column_stack([losses, cheap])))
        front = front[np.argsort(losses[front], kind="stable")]
        found = {}
        for row, own in zip(rows, self._cheap(np.array(rows)), strict=True):
            no_worse = front[(cheap[front] <= own).all(1)]
            found[row] = [known[i] for i in no_worse[: self.rivals]]
        needed = {rival for rivals in found.values() for rival in rivals}
        kept = {known[i] for i in front} | needed
        self._right = {row: right for row, right in self._right.items() if row in kept}
        # after an interruption: the journal has accuracies, not answers
        forgotten = sorted(needed - self._right.keys())
        self._right.update(self.evaluator.answers(forgotten, self.evaluator.data.validation))
        return found

    def _stop(self, context: str, row: Architecture, right: BoolArray, against: dict[Architecture, BoolArray]) -> float:
        """Journal a stopped row; what it costs."""
        images, whole = len(right), len(self.evaluator.data.validation)
        rival = max(against, key=lambda r: log_capital(right, against[r]))
        loss = 1 - self._accuracies[rival]
        # the rival is known on the whole split, so only the difference has to be estimated
        difference = against[rival].astype(float) - right
        estimate = loss + float(difference.mean())
        deviation = float(difference.std()) / sqrt(images) * sqrt(1 - images / whole)
        cost = max(estimate, loss + 1 / whole)
        # the cost comes last: what has one has the rest
        figures = {"images": images, "estimate": estimate, "deviation": deviation, "stopped": cost}
        for metric, value in figures.items():
            self.evaluator.journal.write(context, metric, row, value)
        if self.on_stopped is not None:
            self.on_stopped(Stopped(row, rival, images, estimate, deviation))
        return cost

    def _cheap(self, X: IntArray) -> FloatArray:
        """Cheap costs of each row, (n, costs)."""
        return np.stack([np.zeros(len(X)), *(cost(X) for cost in self.cheap)], axis=1)[:, 1:]
