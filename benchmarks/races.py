"""Races of networks whose answers are simulated: how often they stop wrongly, and what they save in whole searches.

A network labels an image right where its ability, with an effect of each of its options on that image, exceeds how hard
the image is. Networks that share options answer alike, as subnets of one supernet do. Two networks of equal accuracy
disagree on about one image in fifteen (`disagreement` in the record).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from hwnas.engine.algorithms import make
from hwnas.engine.architecture import Architecture, BoolArray, FloatArray, Gene, IntArray
from hwnas.engine.dataset import Split
from hwnas.engine.evaluation.inherited import InheritedAccuracy
from hwnas.engine.evaluation.prefix import Parts
from hwnas.engine.evaluation.racing import Course, RacedAccuracy, Stopped, beaten
from hwnas.engine.front import non_dominated, normalised_hypervolume
from hwnas.engine.journal import Journal
from hwnas.engine.objective import Costs, Objective
from hwnas.engine.search import search

ERROR = 0.05  # stated
IMAGES, GENES, OPTIONS, SPREAD = 10_000, 20, 4, 0.35
ABILITY = (0.5, 1.5)  # of the smallest and the largest network, in standard deviations of the images' hardness
POPULATION = 40

Measured = dict[str, Any]


@dataclass(frozen=True)
class Remembering(InheritedAccuracy):
    """Answers each network once for all searches; they are the same however often it is asked."""

    answered: dict[Architecture, BoolArray] = field(default_factory=dict)

    def answers(
        self,
        architectures: Sequence[Architecture],
        split: Split,
        *,
        order: IntArray | None = None,
        held: dict[Architecture, Parts] | None = None,
    ) -> Iterator[tuple[Architecture, BoolArray]]:
        missing = [row for row in architectures if row not in self.answered]
        self.answered.update(self.first_answers(missing, split))
        for row in architectures:
            if held is not None:
                held[row] = []
            yield row, self.answered[row] if order is None else self.answered[row][order]

    def first_answers(
        self, architectures: list[Architecture], split: Split
    ) -> Iterator[tuple[Architecture, BoolArray]]:
        """Those of networks that nobody asked yet."""
        return super().answers(architectures, split)


@dataclass(frozen=True)
class Simulated(Remembering):
    """Answers of made-up networks, the same for a seed."""

    seed: int = 0

    @cached_property
    def _tables(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        rng = np.random.default_rng([3, self.seed])
        gain = np.cumsum(rng.random((GENES, OPTIONS)) * 0.7 ** np.arange(OPTIONS), axis=1)
        effects = rng.normal(0, SPREAD / np.sqrt(GENES), (GENES, OPTIONS, IMAGES)).astype(np.float32)
        return (gain - gain[:, :1]) / np.ptp(gain, axis=1).sum(), effects, rng.normal(size=IMAGES)

    @property
    def context(self) -> str:
        return f"simulated{self.seed}"

    def first_answers(
        self,
        architectures: list[Architecture],
        split: Split,  # noqa: ARG002
    ) -> Iterator[tuple[Architecture, BoolArray]]:
        gain, effects, hard = self._tables
        for row in architectures:
            ability = ABILITY[0] + (ABILITY[1] - ABILITY[0]) * gain[np.arange(GENES), row].sum()
            yield row, ability * np.sqrt(1 + SPREAD**2) + effects[np.arange(GENES), row].sum(0) > hard


def simulated(
    folder: Path, seed: int, answered: dict[Architecture, BoolArray] | None = None
) -> tuple[Simulated, Costs]:
    """An evaluator of simulated networks, and what they cost."""
    folder.mkdir(parents=True, exist_ok=True)
    genes = tuple(Gene(f"g{i}", tuple(range(OPTIONS))) for i in range(GENES))
    space: Any = SimpleNamespace(genes=genes)
    data: Any = SimpleNamespace(validation=np.zeros(IMAGES))
    supernet: Any = None
    price = np.cumsum(np.random.default_rng([4, seed]).random((GENES, OPTIONS)), axis=1)
    journal = Journal(f"sqlite:///{folder / 'journal.sqlite'}")
    kept = {} if answered is None else answered
    evaluator = Simulated(space, supernet, data, journal, calibration=256, seed=seed, answered=kept)
    return evaluator, lambda X: price[np.arange(GENES), X].sum(1)


def raced_search(seed: int, cheap: Costs, evaluator: Callable[[str], Remembering], evaluations: int) -> Measured:
    """One search in full and raced: equal budget, seed and networks. Images are counted with those of calibration."""
    fronts, counted, stops = {}, {}, list[Stopped]()
    for way in ("full", "raced"):
        accuracy = evaluator(way)
        images = len(accuracy.data.validation)
        race = RacedAccuracy(accuracy, (cheap,), error=ERROR, on_stopped=stops.append)
        cost = race.errors if way == "raced" else accuracy.errors
        genes = accuracy.space.genes
        algorithm = make("nsga2", genes, population=POPULATION, rng=np.random.default_rng(seed))
        objectives = [Objective("accuracy", "", cost, maximised=True), Objective("cheap", "", cheap, cheap=True)]
        told = search(algorithm, objectives, evaluations=evaluations)
        fronts[way] = told.costs[non_dominated(told.costs)]
        stopped = sum(stop.images for stop in stops)
        counted[way] = (len(told) - len(stops)) * images + stopped + len(told) * accuracy.calibration
    both = np.concatenate(list(fronts.values()))
    worst, best = both.max(0), both.min(0)
    reference = tuple((worst + 0.1 * (worst - best)).tolist())
    reached = {
        way: normalised_hypervolume(costs, ideal=tuple(best.tolist()), reference=reference)
        for way, costs in fronts.items()
    }
    answered = accuracy.answered
    return {
        "seed": seed,
        "candidates": evaluations,
        "stopped": len(stops),
        "images in full": counted["full"],
        "images raced": counted["raced"],
        "fewer images": counted["full"] / counted["raced"],
        "hypervolume in full": reached["full"],
        "hypervolume raced": reached["raced"],
        "lost hypervolume": 1 - reached["raced"] / reached["full"],
        "wrong stops": sum(int(answered[s.architecture].sum() >= answered[s.rival].sum()) for s in stops),
        "disagreement": float(np.mean([(answered[s.architecture] != answered[s.rival]).mean() for s in stops])),
    }


# ---- wrong stops ----------------------------------------------------------------------------------------------------


def races(candidates: BoolArray, rival: BoolArray, known: Sequence[BoolArray], rng: np.random.Generator) -> Measured:
    """One race of each of the candidates (rows, images) against the rival, all in one order of the images."""
    course = Course.of(rival, known, first=RacedAccuracy.first, rng=rng)
    answers = candidates[:, course.order]
    seen = np.full(len(answers), len(rival))
    for look in course.looks[:-1]:
        over = beaten(answers[:, :look], course, error=ERROR / (len(course.looks) - 1))
        seen[over & (seen == len(rival))] = look
    right, stopped = candidates.sum(1), seen < len(rival)
    unbeaten, tied = right >= rival.sum(), right == rival.sum()
    return {
        "unbeaten": int(unbeaten.sum()),
        "wrong": int((stopped & unbeaten).sum()),
        "tied": int(tied.sum()),
        "tied wrong": int((stopped & tied).sum()),
        "images": int(seen.sum()),
        "of": len(rival) * len(answers),
    }


def simulated_race(rng: np.random.Generator) -> Measured:
    """Candidates of one rival among a front of twelve networks; half of them are made exactly as accurate as it is."""
    images, front, candidates = 4000, 12, 20
    hard = rng.normal(size=images)
    able = np.sort(rng.normal(1.6, 0.3, front))
    rival = int(rng.integers(0, front))
    ties = rng.random(candidates) < 0.5
    ability = np.concatenate([able[rival] - np.where(ties, 0.0, rng.normal(0.15, 0.2, candidates)), able])
    # steep curves: networks of one supernet agree on most images
    answers = rng.random((len(ability), images)) < 1 / (1 + np.exp(-4 * (ability[:, None] - hard)))
    goal = int(answers[candidates + rival].sum())
    for i in np.flatnonzero(ties):
        right = int(answers[i].sum())
        changed = rng.permutation(np.flatnonzero(answers[i] == (right > goal)))[: abs(right - goal)]
        answers[i, changed] = right < goal
    return races(answers[:candidates], answers[candidates + rival], list(answers[candidates:]), rng)


def real_race(rows: list[Architecture], answered: dict[Architecture, BoolArray], cheap: FloatArray) -> Any:
    """Races of networks that were answered: a random half is known, those of the rest that one of it rivals compete."""
    right = np.array([answered[row].sum() for row in rows])

    def race(rng: np.random.Generator) -> Measured:
        chosen = rng.permutation(len(rows))
        candidates, known = chosen[: len(rows) // 2], chosen[len(rows) // 2 :]
        front = known[non_dominated(np.stack([-right[known], cheap[known]], axis=1).astype(np.float64))]
        rival = int(rng.choice(front))
        # whose rival it is: no other of the front costs as little and is more accurate
        dearer = cheap[front][right[front] > right[rival]].min(initial=np.inf)
        own = [i for i in candidates if cheap[rival] <= cheap[i] < dearer]
        if not own:
            return dict.fromkeys(("unbeaten", "wrong", "tied", "tied wrong", "images", "of"), 0)
        answers = np.array([answered[rows[i]] for i in own])
        return races(answers, answered[rows[rival]], [answered[rows[i]] for i in front], rng)

    return race


def wrong_stops(name: str, race: Callable[[np.random.Generator], Measured], runs: int) -> Measured:
    """Totals of so many races."""
    found = [race(np.random.default_rng([7, i])) for i in range(runs)]
    total = {key: sum(each[key] for each in found) for key in found[0]}
    return {
        "answers": name,
        "runs": runs,
        "not beaten": total["unbeaten"],
        "stopped wrongly": total["wrong"],
        "share": total["wrong"] / max(1, total["unbeaten"]),
        "of ties": total["tied wrong"] / max(1, total["tied"]),
        "stated": ERROR,
        "fewer images": total["of"] / max(1, total["images"]),
    }
