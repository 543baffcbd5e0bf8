"""A batch of rows that together add the most hypervolume, in expectation over draws of their costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwnas.engine.architecture import FloatArray, IntArray

LINES = 512  # lines that the hypervolume is integrated along where there are three objectives or more
MOST = 1024  # lines at most where there are two and they are exact


def most_improving(
    draws: FloatArray, front: FloatArray, reference: FloatArray, *, n: int, rng: np.random.Generator
) -> IntArray:
    """Indices of up to `n` candidates, best first; fewer where no more can add anything.

    `draws` (draws, candidates, objectives), `front` (k, objectives) what is already there. Greedy, which reaches at
    least 1 - 1/e of the best batch's expected improvement, the hypervolume being submodular (Nemhauser, Wolsey and
    Fisher, 1978); draws that are joint let a candidate count less beside one that it resembles (as in Daulton,
    Balandat and Bakshy, NeurIPS 2020, whose improvement this is).
    """
    space = _Undominated.of(draws, front, reference, rng)
    everyone = np.arange(draws.shape[1])
    gains = space.gains(everyone)
    chosen: list[int] = []
    while len(chosen) < n:
        # gains only fall as others are chosen: one that is fresh and still the highest is the highest
        fresh = np.zeros(len(gains), dtype=bool)
        while not fresh[best := int(np.argmax(gains))]:
            stale = np.flatnonzero(~fresh)
            looked_at = stale[np.argsort(-gains[stale], kind="stable")[:8]]
            gains[looked_at] = space.gains(looked_at)
            fresh[looked_at] = True
        if gains[best] <= 0:
            break
        chosen.append(best)
        space.add(best)
        gains[best] = 0.0
    return np.array(chosen, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Undominated:
    """What is left to gain: along lines parallel to the last objective, how far below the reference it is free."""

    costs: FloatArray  # (draws, candidates), the last objective
    crossed: FloatArray  # (draws or 1, candidates, lines) weight of each line that the candidate's other costs allow
    heights: FloatArray  # (draws, lines)

    @classmethod
    def of(cls, draws: FloatArray, front: FloatArray, reference: FloatArray, rng: np.random.Generator) -> _Undominated:
        at, weights = _lines(draws, front, reference, rng)
        others = draws[:, :, :-1]
        if (others == others[:1]).all():
            others = others[:1]
        crossed = (others[:, :, None, :] <= at).all(-1) * weights
        below = (front[:, None, :-1] <= at).all(-1)
        heights = np.where(below, front[:, -1:], reference[-1]).min(0, initial=reference[-1])
        return cls(draws[:, :, -1], crossed, np.repeat(heights[None], len(draws), axis=0))

    def gains(self, candidates: IntArray) -> FloatArray:
        """Mean over the draws of what each candidate would add, (candidates,)."""
        total = np.zeros(len(candidates))
        for k in range(len(self.costs)):
            freed = np.maximum(self.heights[k] - self.costs[k, candidates, None], 0)
            total += np.einsum("cl,cl->c", freed, self.crossed[min(k, len(self.crossed) - 1), candidates])
        return total / len(self.costs)

    def add(self, candidate: int) -> None:
        """Count it in from now on."""
        allowed = self.crossed[:, candidate] > 0
        np.minimum(self.heights, np.where(allowed, self.costs[:, candidate, None], np.inf), out=self.heights)


def _lines(
    draws: FloatArray, front: FloatArray, reference: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Where the lines stand, (lines, objectives - 1), and how much of the other objectives' box each stands for."""
    others = draws.shape[2] - 1
    if others == 0:
        return np.zeros((1, 0)), np.ones(1)
    if others == 1:
        # between two neighbouring costs nothing changes, so strips are exact where this objective is known: medians,
        # since the mean of equal costs may be off by a bit, and its strip would be lost
        at = np.unique(np.concatenate([front[:, 0], np.sort(draws[:, :, 0], axis=0)[len(draws) // 2]]))
        at = at[at < reference[0]]
        if len(at) > MOST:
            at = at[np.unique(np.linspace(0, len(at) - 1, MOST).astype(int))]
        return at[:, None], np.diff(np.append(at, reference[0]))
    low = np.minimum(front.min(0, initial=np.inf), draws.min((0, 1)))[:-1]
    span = np.maximum(reference[:-1] - low, 0)
    return low + rng.random((LINES, others)) * span, np.full(LINES, float(np.prod(span)) / LINES)
