"""Racing: a candidate that a known one clearly beats is not evaluated on the rest of the images.

The rival of a candidate is known on the whole split, so a candidate can gain on it only where the rival is wrong, and
lose only where it is right. The images that the rival or another known network labels wrong come first: they hold
nearly all that two networks can differ in. Among them, and then among the others, the order is random and drawn anew
for each race, so at each look the losses so far are the marked ones of a sample without replacement, and the gains
likewise. A candidate is beaten where losses would hardly exceed gains by so much if there were as many gains as losses
on the whole split, by the two hypergeometric distributions. How many gains that may be is bounded by those that were
seen, for a part of the error (Berger and Boos, "P values maximized over a confidence set for the nuisance parameter",
Journal of the American Statistical Association 89, 1994). Looks share the error evenly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from math import sqrt

import numpy as np
from scipy.stats import hypergeom

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, BoolArray, FloatArray, IntArray
from hwnas.engine.evaluation.inherited import InheritedAccuracy
from hwnas.engine.evaluation.prefix import Parts
from hwnas.engine.front import non_dominated
from hwnas.engine.objective import Costs

NUMBERS = 16  # of gains that are looked at, evenly, where more are possible: the chance changes smoothly with them
PROBES = 64  # rows whose cheap costs tell one set of cheap costs from another


def least(hits: IntArray, drawn: int, population: int, *, error: float) -> IntArray:
    """Numbers (n,) that the marked of a population are at least, each wrong with a probability of at most `error`.

    `hits` (n,) of `drawn` were marked, drawn at random without replacement. Exact: of the numbers with which that many
    hits are likelier than `error`, the smallest.
    """
    low, high = hits, population - drawn + hits
    while (low < high).any():
        marked = (low + high) // 2
        likely = hypergeom.sf(hits - 1, population, marked, drawn) > error
        low, high = np.where(likely, low, np.minimum(marked + 1, high)), np.where(likely, marked, high)
    return low


def most(hits: IntArray, drawn: int, population: int, *, error: float) -> IntArray:
    """Numbers (n,) that the marked of a population are at most; as `least` of those that are not marked."""
    return population - least(drawn - hits, drawn, population, error=error)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sample without replacement."""

    drawn: int
    population: int

    def chances(self, hits: IntArray, marked: IntArray) -> FloatArray:
        """Of exactly so many hits (h,) where so many of the population are marked (m,): (m, h), hypergeometric."""
        ln = _log_factorials(self.population)

        def choices(n: int | IntArray, k: int | IntArray) -> FloatArray:
            """Logarithm of n over k; -inf outside."""
            inside = (k >= 0) & (k <= n)
            found = np.asarray(ln[n] - ln[np.where(inside, k, 0)] - ln[np.where(inside, n - k, 0)])
            return np.where(inside, found, -np.inf)

        marked = marked[:, None]
        ways = choices(marked, hits) + choices(self.population - marked, self.drawn - hits)
        return np.exp(ways - choices(self.population, self.drawn))


@lru_cache(64)  # a race has two populations, and others than the race before
def _log_factorials(largest: int) -> FloatArray:
    """Of 0 to `largest`."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, largest + 1)))])


def surpassed(lost: int, gained: int, right: Drawn, wrong: Drawn, *, error: float) -> bool:
    """Whether there are more losses than gains on the whole split, wrong with a probability of at most `error`.

    `lost` of those that were drawn of the images that the rival has right, `gained` of those that it has wrong.
    """
    if not right.drawn or not wrong.drawn:
        return False
    ahead = lost * right.population / right.drawn - gained * wrong.population / wrong.drawn
    if ahead <= 0:
        return False
    bound = error / 10  # for how many gains there may be
    largest = int(most(np.array([gained]), wrong.drawn, wrong.population, error=bound)[0])
    # fewer than these are never as far ahead
    losses = np.arange(int(ahead * right.drawn / right.population), min(right.drawn, largest) + 1)
    # gains with which so many losses are as far ahead as what was seen
    few = np.floor((losses * right.population / right.drawn - ahead) * wrong.drawn / wrong.population + 1e-9).astype(
        int
    )
    gains = np.arange(min(wrong.drawn, largest) + 1)

    def chance(marked: IntArray) -> FloatArray:
        """Of being so far ahead with as many losses as gains, the hardest to tell of all that is not beaten."""
        at_most = np.cumsum(wrong.chances(gains, marked), axis=1)
        as_few = np.where(few < 0, 0.0, at_most[:, np.clip(few, 0, len(gains) - 1)])
        found: FloatArray = (right.chances(losses, np.minimum(marked, right.population)) * as_few).sum(1)
        return found

    allowed = error - bound
    if len(losses) and chance(np.array([largest]))[0] > allowed:  # nearly always the worst
        return False
    marked = np.unique(np.linspace(gained, largest, min(largest - gained + 1, NUMBERS)).astype(int))
    return bool(not len(losses) or chance(marked).max() <= allowed)


@dataclass(frozen=True, slots=True)
class Course:
    """The order of the images of one race, what the rival makes of them, and where the race is looked at."""

    order: IntArray  # (images,), the contested ones first
    rival: BoolArray  # (images,) which it labels right, in this order
    contested: int
    looks: tuple[int, ...]  # numbers of images, all at last

    @classmethod
    def of(cls, rival: BoolArray, known: Sequence[BoolArray], *, first: int, rng: np.random.Generator) -> Course:
        """The course against a rival, from what it and other known networks label right, (images,) each.

        Looks: after `first` images and then twice as many each time, after all that are contested, and after an
        eighth, a quarter and a half of the others.
        """
        hard = ~rival
        for right in known:
            hard = hard | ~right
        order = rng.permutation(len(rival))
        order = order[np.argsort(~hard[order], kind="stable")]
        contested, images = int(hard.sum()), len(rival)
        early, n = [], first
        while n < contested:
            early.append(n)
            n *= 2
        late = [contested + (images - contested) // part for part in (8, 4, 2)]
        looks = sorted({n for n in (*early, contested, *late) if 0 < n < images} | {images})
        return cls(order, rival[order], contested, tuple(looks))


def beaten(candidates: BoolArray, course: Course, *, error: float) -> BoolArray:
    """Which of them the rival is more accurate than on the whole split, (rows,).

    `candidates` (rows, n) says which of the first n images of the course each labels right. Each answer is wrong with a
    probability of at most `error` at this one look.
    """
    contested, rest = candidates[:, : course.contested], candidates[:, course.contested :]
    rival, whole = course.rival[: contested.shape[1]], course.rival[: course.contested]
    gained, lost = (contested & ~rival).sum(1), (~contested & rival).sum(1)
    if contested.shape[1] < course.contested:
        right, wrong = Drawn(int(rival.sum()), int(whole.sum())), Drawn(int((~rival).sum()), int((~whole).sum()))
        return np.array(
            [surpassed(int(a), int(b), right, wrong, error=error) for a, b in zip(lost, gained, strict=True)]
        )
    # the contested are known by now: all of the error is left for the rest, where the rival is always right
    beyond = least((~rest).sum(1), rest.shape[1], len(course.rival) - len(whole), error=error)
    return np.asarray(lost + beyond > gained)


@dataclass(frozen=True, slots=True)
class Stopped:
    """What is known of a candidate that left a race early."""

    architecture: Architecture
    rival: Architecture
    images: int  # evaluated
    estimate: float  # of 1 - accuracy on the whole split; images of which none was evaluated count as labelled right
    deviation: float  # standard error of the estimate


@dataclass
class RacedAccuracy:
    """1 - validation accuracy as a cost, evaluated in full only for candidates that no known one clearly beats.

    The rival of a candidate is the most accurate architecture of earlier calls that was evaluated in full and is no
    worse in every `cheap` cost. For each candidate, the probability to be stopped although its rival is not more
    accurate on the whole split is at most `error`. A stopped one costs its estimate, but at least one image more than
    its rival, so it stays dominated.

    Candidates of one rival see the same images and share what their networks begin with; those of others do not.
    Values of stopped candidates are journalled under a context of their own and never taken for accuracies; what was
    once told as stopped stays so. Repeating the calls in their order repeats the values, after an interruption too.
    """

    evaluator: InheritedAccuracy
    cheap: Sequence[Costs]
    error: float = 0.05
    first: int = 64  # images at the first look
    seed: int = 0
    on_stopped: Callable[[Stopped], None] | None = None
    _accuracies: dict[Architecture, float] = field(default_factory=dict, init=False)  # told in earlier calls
    _right: dict[Architecture, BoolArray] = field(default_factory=dict, init=False)  # of rivals, in the split's order
    _told: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.error < 1:
            raise ValueError(f"error is {self.error}: give the probability of a wrong stop, between 0 and 1")
        if self.first < 1:
            raise ValueError(f"first is {self.first}: a race is first looked at after 1 image or more")

    def context(self, evaluation: str) -> str:
        """What a stop depends on: the context of the evaluation, the settings of the race and the cheap costs."""
        genes = self.evaluator.space.genes
        probes = arch.sample(genes, PROBES, np.random.default_rng(0))
        digest = hashlib.sha256(repr(("joint", self.error, self.first, self.seed)).encode())
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
        groups: dict[Architecture | None, list[Architecture]] = {}
        for row, rival in self._rivals(rows).items():
            groups.setdefault(rival, []).append(row)
        # another order for each race, or who is asked for would depend on the order in which it is then tested
        told = self._told
        accuracies: dict[Architecture, float] = {}
        costs: dict[Architecture, float] = {}
        known = list(self._right.values())
        for row, answers in self.evaluator.answers(groups.pop(None, []), split):
            accuracies[row] = self._finish(full, row, answers)
        for rival, group in groups.items():
            rng = np.random.default_rng([self.seed, told, *(rival or ())])
            course = Course.of(self._right[rival or ()], known, first=self.first, rng=rng)
            for row, right in self._run(group, course):
                if len(right) == len(split):
                    accuracies[row] = self._finish(full, row, right[np.argsort(course.order)])
                else:
                    costs[row] = self._stop(raced, row, right, course, rival or ())
        return accuracies, costs

    def _run(self, rows: list[Architecture], course: Course) -> Iterator[tuple[Architecture, BoolArray]]:
        """What each labels right of the images that it was evaluated on, in the order of the course."""
        right = {row: np.zeros(0, dtype=bool) for row in rows}
        split, error = self.evaluator.data.validation, self.error / max(1, len(course.looks) - 1)
        held: dict[Architecture, Parts] = {}
        for seen, look in pairwise((0, *course.looks)):
            for row, answers in self.evaluator.answers(list(right), split, order=course.order[seen:look], held=held):
                right[row] = np.concatenate([right[row], answers])
            over = beaten(np.stack(list(right.values())), course, error=error) | (look == len(split))
            done = [row for row, is_over in zip(right, over, strict=True) if is_over]
            for row in done:
                yield row, right.pop(row)
                del held[row]
            if not right:
                break

    def _finish(self, context: str, row: Architecture, right: BoolArray) -> float:
        """Journal a row that was evaluated in full; its accuracy."""
        self._right[row] = right
        return self.evaluator.keep(context, row, right)

    def _rivals(self, rows: list[Architecture]) -> dict[Architecture, Architecture | None]:
        """Whom each row has to beat, None where nobody costs as little; what these label right is known afterwards."""
        known = list(self._accuracies)
        if not known:
            return dict.fromkeys(rows)
        losses = 1 - np.array([self._accuracies[row] for row in known])
        cheap = self._cheap(np.array(known))
        front = np.flatnonzero(non_dominated(np.column_stack([losses, cheap])))
        front = front[np.argsort(losses[front], kind="stable")]
        found: dict[Architecture, Architecture | None] = {}
        for row, own in zip(rows, self._cheap(np.array(rows)), strict=True):
            no_worse = front[(cheap[front] <= own).all(1)]
            found[row] = known[no_worse[0]] if len(no_worse) else None
        members = [known[i] for i in front]
        # after an interruption: the journal has accuracies, not answers
        forgotten = sorted(set(members) - self._right.keys())
        self._right.update(self.evaluator.answers(forgotten, self.evaluator.data.validation))
        self._right = {row: self._right[row] for row in members}
        return found

    def _stop(self, context: str, row: Architecture, right: BoolArray, course: Course, rival: Architecture) -> float:
        """Journal a stopped row; what it costs."""
        images, whole = len(right), len(course.rival)
        loss = 1 - self._accuracies[rival]
        # the rival is known on the whole split, so only the difference has to be estimated
        difference = course.rival[:images].astype(float) - right
        estimate, variance = loss, 0.0
        for start, stop in ((0, course.contested), (course.contested, whole)):
            drawn = difference[start:stop]
            if len(drawn):
                estimate += float(drawn.mean()) * (stop - start) / whole
                missing = 1 - len(drawn) / (stop - start)
                variance += float(drawn.var()) / len(drawn) * missing * ((stop - start) / whole) ** 2
        deviation = sqrt(variance)
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
