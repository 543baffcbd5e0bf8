"""Fronts of costs that are known with an error: what surely beats what, what is tied, what to look at first."""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.stats import norm

from hwnas.engine.architecture import BoolArray, FloatArray, IntArray
from hwnas.engine.front import non_dominated

BEATEN = 0.95


def independent(errors: FloatArray) -> FloatArray:
    """Standard errors (n, objectives) -> those of all differences, (n, n, objectives): errors that know nothing of
    each other."""
    return np.hypot(errors[:, None], errors[None])


def surely_beats(costs: FloatArray, differences: FloatArray, *, confidence: float) -> BoolArray:
    """Whether row i surely beats row j, (n, n).

    It does where it is better in one objective by more than the noise, and in no objective worse by more than it: a
    loss inside the noise is none. The noise is the one-sided normal quantile of `confidence` times `differences`,
    the standard errors (n, n, objectives) of costs[i] - costs[j]. Without errors this is Pareto dominance.
    """
    gain = costs[None] - costs[:, None]  # of i over j
    noise = float(norm.ppf(confidence)) * differences
    return np.asarray((gain > noise).any(2) & (gain >= -noise).all(2), dtype=bool)


def sure_front(costs: FloatArray, differences: FloatArray, *, confidence: float) -> BoolArray:
    """Which rows are on the front with that confidence, (n,): some are, whatever the errors.

    Of the rows that no other dominates as measured, those leave that a row which stays surely beats: a tenth of a
    millisecond inside the noise makes no new point where it costs accuracy. Only who stays can push another out, or a
    chain of small steps would fall to its first (the kernel of the relation: von Neumann and Morgenstern, Theory of
    Games, 1944, section 65). Surely beating can go round in a circle; those of a circle stay or leave together.
    Without errors this is the Pareto front.
    """
    kept = non_dominated(costs) if len(costs) else np.zeros(0, dtype=bool)
    rows = np.flatnonzero(kept)
    if not len(rows):
        return kept
    beats = surely_beats(costs[rows], differences[np.ix_(rows, rows)], confidence=confidence)
    waiting, stay = np.ones(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    while waiting.any():
        left = np.flatnonzero(waiting)
        among = beats[np.ix_(left, left)]
        _, circle = connected_components(among, directed=True, connection="strong")
        beaten_from_outside = circle[(among & (circle[:, None] != circle[None])).any(0)]
        first = left[~np.isin(circle, beaten_from_outside)]
        stay[first] = True
        waiting[first] = False
        waiting &= ~beats[first].any(0)
    kept[rows] = stay
    return kept


def tied(costs: FloatArray, differences: FloatArray, *, confidence: float) -> BoolArray:
    """Which pairs of rows only noise tells apart, (n, n): no objective differs by more; none with itself."""
    noise = float(norm.ppf(confidence)) * differences
    return np.asarray((np.abs(costs[None] - costs[:, None]) <= noise).all(2) & ~np.eye(len(costs), dtype=bool))


def beaten(costs: FloatArray, errors: FloatArray) -> FloatArray:
    """Largest probability with which one other row beats each row in every objective at once, (n,).

    Costs are normal and independent around what was seen, with these standard errors, both (n, objectives). Where two
    costs have no error, an equal one counts as beaten by half.
    """
    gain, spread = costs[None] - costs[:, None], independent(errors)
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(spread > 0, gain / spread, np.sign(gain) * np.inf)
    chance = norm.cdf(np.where(np.isnan(times), 0.0, times)).prod(2)
    np.fill_diagonal(chance, 0.0)
    return np.asarray(chance.max(0, initial=0.0), dtype=np.float64)


def most_uncertain_first(costs: FloatArray, errors: FloatArray) -> IntArray:
    """Order of the rows in which measuring tells most about the front, (n,).

    Those whose place on it is nearest to a toss come first, those that are surely on it next, and last those that are
    beaten with a probability above `BEATEN`.
    """
    chance = beaten(costs, errors)
    return np.lexsort((np.abs(chance - 0.5), chance > BEATEN))
