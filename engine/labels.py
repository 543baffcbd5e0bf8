"""Which partial networks are worth going on with: those of a state that no other beats, or stands for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import moocore
import numpy as np

from hwnas.engine.architecture import BoolArray, FloatArray, IntArray

MOST_CELLS = 1 << 22  # of the grid, over all states
CELL = 0.5  # side of a cell, as a share of what may be given away anew


def pareto(states: IntArray, costs: FloatArray) -> IntArray:
    """Indices of the rows (n, costs) that no row of the same state beats, sorted by state and costs.

    Of equal rows the first stays.
    """
    rows = _hopeful(states, costs)
    order, keep = _sorted(states[rows], costs[rows])
    return rows[order[keep]]


def _hopeful(states: IntArray, costs: FloatArray) -> IntArray:
    """Indices of rows that no row of a lower cell of a coarse grid beats: sorting all takes three times as long."""
    n, dimensions = len(costs), costs.shape[1] - 1
    cells = n / (4 * (int(states.max(initial=0)) + 1))  # of a state; a quarter of the rows in all
    parts = int(cells ** (1 / dimensions)) if dimensions else 0
    if parts < 2:
        return np.arange(n)
    place, below = states, states
    for column in costs.T[:-1]:
        low, high = float(column.min()), float(column.max())
        cell = ((column - low) * (parts / max(high - low, 1e-300) * (1 - 1e-9))).astype(np.int64)
        place, below = place * (parts + 1) + cell + 1, below * (parts + 1) + cell
    grid = np.full((int(states.max()) + 1) * (parts + 1) ** dimensions, np.inf)
    np.minimum.at(grid, place, costs[:, -1])
    grid = grid.reshape(-1, *[parts + 1] * dimensions)
    for axis in range(1, 1 + dimensions):
        np.minimum.accumulate(grid, axis=axis, out=grid)
    return np.flatnonzero(costs[:, -1] < grid.ravel()[below])


def _sorted(states: IntArray, costs: FloatArray) -> tuple[IntArray, BoolArray]:
    """The order by state and costs, and which are unbeaten in that order; with two costs the last such beats a row."""
    n, objectives = costs.shape
    order = np.lexsort((*costs.T[::-1], states))
    state, cost = states[order], costs[order]
    keep = np.ones(n, dtype=bool)
    keep[1:] = state[1:] != state[:-1]
    if objectives == 2:
        # minima that begin anew with each state: complex numbers compare by their real part first
        ranked = np.empty(n, dtype=np.complex128)
        ranked.real, ranked.imag = -state, cost[:, 1]
        keep[1:] |= cost[1:, 1] < np.minimum.accumulate(ranked).imag[:-1]
    elif objectives > 2:
        for start, stop in pairwise([*np.flatnonzero(keep).tolist(), n]):
            if stop - start > 1:
                keep[start:stop] = moocore.is_nondominated(cost[start:stop], keep_weakly=False)
    return order, keep


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much higher than what it stands for a network may cost in the end, as a scale on which that is 1.

    A cost that is positive everywhere is looked at by its logarithm, so that 1 is a factor of 1 + epsilon; any other
    by its value, so that 1 is `epsilon` times its range.
    """

    epsilon: float
    relative: tuple[bool, ...]
    ranges: FloatArray  # (objectives,)

    @classmethod
    def of(cls, epsilon: float, *, lowest: FloatArray, highest: FloatArray) -> Tolerance:
        """From the lowest and highest cost of whole networks, each (objectives,)."""
        return cls(epsilon, tuple((lowest > 0).tolist()), np.maximum(highest - lowest, 0))

    def scaled(self, bounds: FloatArray) -> FloatArray:
        """Costs (n, objectives) that whole networks cannot go below, on the scale."""
        scaled = np.zeros(bounds.shape)
        for j, relative in enumerate(self.relative):
            if relative:
                scaled[:, j] = np.log(bounds[:, j]) / np.log1p(self.epsilon)
            elif self.ranges[j] > 0:
                scaled[:, j] = bounds[:, j] / (self.epsilon * self.ranges[j])
        return scaled


def unbeaten(states: IntArray, scaled: FloatArray, given: FloatArray) -> tuple[IntArray, FloatArray]:
    """`pareto` of two scaled costs (n, 2), and what the rows that stay give away for those that they beat too."""
    order, keep = _sorted(states, scaled)
    kept = order[keep]
    beating = kept[np.cumsum(keep) - 1]
    need = np.maximum(given[order] + (scaled[beating] - scaled[order]).max(1), 0)
    return kept, np.maximum.reduceat(need, np.flatnonzero(keep)) if len(need) else need


def thinned(
    states: IntArray, scaled: FloatArray, limited: FloatArray, given: FloatArray, *, most: float
) -> tuple[IntArray, FloatArray]:
    """Indices of rows that stand for all rows of their state, and what they then give away, `most` or less.

    `scaled` (n, objectives) are lower bounds on the scale of a Tolerance, `limited` (n, limits) may not rise at all,
    and `given` (n,) is how much better than itself, on the scale, the best was that a row stands for so far. A row is
    dropped for another where that one gives away no more than `most`, counted from the best that either stands for.
    As more is added to both, a ratio shrinks and a difference stays, so that what holds of bounds holds of whole
    networks.
    """
    left = np.arange(len(states))
    side = CELL * max(most - float(given.max(initial=0)), 1e-3)
    given = given.copy()
    for below in (0, 1):  # first those of the same cell and lower ones, then lower ones alone
        rows = scaled[left]
        other = left[_lowest(states[left], rows, below, side)]
        need = np.maximum(given[left] + (scaled[other] - rows).max(1), 0)
        drop = (other != left) & (need <= most - 1e-9) & (limited[other] <= limited[left]).all(1)
        np.maximum.at(given, other[drop], need[drop])
        left = left[~drop]
    return left, given[left]


def _lowest(states: IntArray, scaled: FloatArray, below: int, side: float) -> IntArray:
    """For each row the index of the one with the least last cost, of those that lie in cells no higher than its own.

    With `below` at 1, only of those whose cells are lower in every objective but the last. The row itself where that
    one's last cost is higher, or where there is none. Whoever is found for a row finds itself.
    """
    n = len(states)
    present, state = np.unique(states, return_inverse=True)
    dimensions = scaled.shape[1] - 1
    cells = np.zeros((n, dimensions), dtype=np.int64)
    if dimensions:
        low = scaled[:, :-1].min(0)
        span = scaled[:, :-1].max(0) - low
        widest = max(2, int((MOST_CELLS / len(present)) ** (1 / dimensions)) - 1)
        cells = ((scaled[:, :-1] - low) / np.maximum(side, span / (widest - 1))).astype(np.int64) + 1
    order = np.argsort(scaled[:, -1], kind="stable")
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    grid = np.full((len(present), *(cells.max(0) + 1)), n, dtype=np.int64)
    np.minimum.at(grid, (state, *cells.T), rank)
    for axis in range(1, 1 + dimensions):
        np.minimum.accumulate(grid, axis=axis, out=grid)
    found = grid[(state, *(cells - below).T)]
    return np.asarray(np.where(found <= rank, order[np.minimum(found, n - 1)], np.arange(n)))
