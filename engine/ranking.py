"""How well scores order architectures, beside how well anything could and what costs nothing to compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from hwnas.engine.architecture import FloatArray, IntArray

TOP = 10  # places that NDCG and regret look at
SHARE = 0.1  # of the architectures that precision looks at
CONFIDENCE = 0.95
ORDERS = 200  # random orders that the random baseline is taken over
FEWEST = 3  # architectures below which an order says nothing
PAIRS_AT_ONCE = 4_000_000  # of architectures compared at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Relevance:
    """Truths as what NDCG counts: 0 up to `low`, `scale` from `high` on, a line between.

    Zhang et al., AceNAS (arXiv 2108.03001): `low` the lower fifth, `high` the best of a pool, `scale` 20. The bounds
    are the pool's, not those of a list that was drawn from it.
    """

    low: float
    high: float
    scale: float = 20.0

    @classmethod
    def of(cls, gains: FloatArray, *, lower: float = 0.2, scale: float = 20.0) -> Relevance:
        """The bounds of a pool of gains (n,), larger is better."""
        return cls(float(np.quantile(gains, lower)), float(np.max(gains)), scale)

    def __call__(self, gains: FloatArray) -> FloatArray:
        """Relevance of gains, same shape, in 0 to `scale`; of a pool without spread all is 0."""
        span = self.high - self.low
        if span <= 0:
            return np.zeros_like(gains, dtype=np.float64)
        share: FloatArray = np.clip((gains - self.low) / span, 0, 1)
        return share * self.scale


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and where it may lie."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether all of it lies on one side of 0."""
        return self.low > 0 or self.high < 0


Figures = Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class RankingReport:
    """Figures of one score. Those named `regret` are better small, all others large.

    `kendall` (tau-b), `spearman`, `ndcg_at_10` (gain 2^relevance - 1), `regret_at_10` (of the best among the ten
    highest scores, in units of the truth), `top_tenth` (share of the tenth scored highest that is in the truth's) and,
    where MACs are given, `kendall_given_macs` (Kendall's partial tau). Intervals are percentile bootstraps over
    architectures; a resample holds architectures twice, so those of the top's figures are rough.
    """

    architectures: int
    truths: int  # seeds that the truth is the mean of
    bootstraps: int
    figures: Figures
    ceiling: Figures | None  # one seed's truth as the score for the mean of the others; None of one seed
    baselines: Mapping[str, Figures]  # "random", and "params" and "macs" where they are given
    ahead: Mapping[str, Figures]  # of params and MACs: our figure less theirs, resample by resample


def ranking_report(
    score: FloatArray,
    truth: FloatArray,
    *,
    macs: FloatArray | None = None,
    params: FloatArray | None = None,
    higher_is_better: bool = True,
    bootstraps: int = 1000,
    rng: np.random.Generator,
) -> RankingReport:
    """How well `score` (n,) orders `truth`, (n,) or (seeds, n).

    `higher_is_better` says what both mean: True for accuracies, False for errors and losses. `macs` and `params` (n,)
    are taken as scores of their own, the larger the better. All chance, of resamples and of random orders, comes from
    `rng`. Raises ValueError for shapes that do not fit, figures that are not finite, fewer than three architectures.

    >>> report = ranking_report(predicted, accuracy, macs=macs, rng=np.random.default_rng(0))  # doctest: +SKIP
    >>> report.figures["kendall"].value, report.baselines["macs"]["kendall"].value  # doctest: +SKIP
    """
    sign = 1.0 if higher_is_better else -1.0
    gains = sign * np.atleast_2d(np.asarray(truth, dtype=np.float64))
    if gains.ndim != 2 or not np.isfinite(gains).all():
        raise ValueError(f"truths of shape {gains.shape}: give finite ones, (architectures,) or (seeds, architectures)")
    n = gains.shape[1]
    given = {"score": score, "macs": macs, "params": params}
    scores = {name: _checked(name, column, n) for name, column in given.items() if column is not None}
    if n < FEWEST:
        raise ValueError(f"{n} architectures have no order worth a figure: give {FEWEST} or more")
    if bootstraps < 1:
        raise ValueError(f"{bootstraps} bootstraps give no interval: give 1 or more, 1000 for two digits")
    scores["score"] = sign * scores["score"]
    control = scores.get("macs")
    whole = np.ones((1, n), dtype=np.int64)
    counts = np.concatenate([whole, rng.multinomial(n, np.full(n, 1 / n), size=bootstraps)])
    mean = gains.mean(0)
    found = {name: figures_of(column, mean, control, counts=counts) for name, column in scores.items()}
    orders = [figures_of(rng.permutation(n).astype(float), mean, control, counts=whole) for _ in range(ORDERS)]
    random = {name: np.concatenate([order[name] for order in orders]) for name in found["score"]}
    return RankingReport(
        n,
        len(gains),
        bootstraps,
        {name: _interval(values) for name, values in found["score"].items()},
        _ceiling(gains, control, counts) if len(gains) > 1 else None,
        {
            "random": {name: Interval(float(values.mean()), *_between(values)) for name, values in random.items()},
            **{name: _intervals(found[name]) for name in ("params", "macs") if name in found},
        },
        {
            name: _intervals({figure: found["score"][figure] - found[name][figure] for figure in found[name]})
            for name in ("params", "macs")
            if name in found
        },
    )


def figures_of(
    score: FloatArray, gains: FloatArray, control: FloatArray | None = None, *, counts: IntArray | None = None
) -> dict[str, FloatArray]:
    """Every figure of a score (n,) for gains (n,), both better large, for each resample of `counts`, (resamples,).

    `counts` (resamples, n) says how often each architecture is in a resample; without it once, in one.
    """
    counts = np.ones((1, len(score)), dtype=np.int64) if counts is None else counts
    tau = kendall(score, gains, counts)
    found = {"kendall": tau, "spearman": spearman(score, gains, counts)}
    relevant = np.exp2(Relevance.of(gains)(gains)) - 1
    tops: list[tuple[float, float, float]] = []
    for row in counts:
        picked = np.repeat(np.arange(len(score)), row)
        tops.append(
            (
                ndcg(score[picked], relevant[picked], TOP),
                regret(score[picked], gains[picked], TOP),
                precision(score[picked], gains[picked], max(1, round(SHARE * len(picked)))),
            )
        )
    found |= dict(zip(("ndcg_at_10", "regret_at_10", "top_tenth"), np.array(tops).T, strict=True))
    if control is not None:
        ours, its = kendall(score, control, counts), kendall(gains, control, counts)
        left = np.sqrt((1 - ours**2) * (1 - its**2))
        # a score that is the MACs' order, or one turned round, has nothing of its own
        found["kendall_given_macs"] = np.where(left > 1e-9, (tau - ours * its) / np.where(left > 1e-9, left, 1), 0.0)
    return found


# ---- correlations of all resamples at once --------------------------------------------------------------------------


def kendall(first: FloatArray, second: FloatArray, counts: IntArray) -> FloatArray:
    """Kendall's tau-b of two columns (n,) in each resample, (resamples,); 0 where a column does not vary.

    Pairs are compared once for all resamples; n^2 pairs and as many multiplications a resample.
    """
    weights = counts.astype(np.float64)
    agreeing, of_first, of_second = np.zeros((3, len(weights)))
    rows = max(1, PAIRS_AT_ONCE // len(first))
    for start in range(0, len(first), rows):
        block = slice(start, start + rows)
        a, b = (np.sign(column[block, None] - column) for column in (first, second))
        own = weights[:, block]
        agreeing += (own * (weights @ (a * b).T)).sum(1)
        of_first += (own * (weights @ np.abs(a).T)).sum(1)
        of_second += (own * (weights @ np.abs(b).T)).sum(1)
    return _ratio(agreeing, np.sqrt(of_first * of_second))


def spearman(first: FloatArray, second: FloatArray, counts: IntArray) -> FloatArray:
    """Spearman's correlation of two columns (n,) in each resample, (resamples,); 0 where a column does not vary."""
    a, b = (_ranks(column, counts) for column in (first, second))
    a, b = (ranks - (counts * ranks).sum(1, keepdims=True) / counts.sum(1, keepdims=True) for ranks in (a, b))
    return _ratio((counts * a * b).sum(1), np.sqrt((counts * a**2).sum(1) * (counts * b**2).sum(1)))


def _ranks(column: FloatArray, counts: IntArray) -> FloatArray:
    """Mean rank of each value among the values of each resample, (resamples, n)."""
    order = np.argsort(column, kind="stable")
    _, first, group = np.unique(column[order], return_index=True, return_inverse=True)
    held = np.add.reduceat(counts[:, order], first, axis=1)
    ranks = np.empty(counts.shape)
    ranks[:, order] = (np.cumsum(held, axis=1) - (held - 1) / 2)[:, group]
    return ranks


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    ratio: FloatArray = np.where(below > 0, above / np.where(below > 0, below, 1), 0.0)
    return ratio


# ---- the top; equal scores count as if chance had ordered them ------------------------------------------------------


def ndcg(score: FloatArray, relevant: FloatArray, k: int) -> float:
    """Normalised discounted cumulative gain of the `k` highest scores (Järvelin and Kekäläinen, 2002), in 0..1.

    `relevant` (n,) are the gains as they are added, 0 or more. 0 where nothing is relevant. Equal scores share the
    mean of their gains (McSherry and Najork, 2008).
    """
    k = min(k, len(score))
    discount = 1 / np.log2(np.arange(k) + 2)
    ideal = float(np.sort(relevant)[::-1][:k] @ discount)
    if ideal <= 0:
        return 0.0
    order = np.argsort(-score, kind="stable")
    _, group = np.unique(-score[order], return_inverse=True)
    shared = np.bincount(group, relevant[order]) / np.bincount(group)
    return float(shared[group[:k]] @ discount) / ideal


def regret(score: FloatArray, gains: FloatArray, k: int) -> float:
    """How far the best of the `k` highest scores lies below the best of all, in units of the gains."""
    inside, border, places = _border(score, k)
    certain = float(gains[inside].max()) if inside.any() else -np.inf
    rest = np.sort(gains[border])[::-1]
    # `places` of m equal scores are taken: in C(m - 1 - j, places - 1) of C(m, places) ways the j-th is their best
    m, j = len(rest), np.arange(len(rest) - places + 1)
    chance = np.exp(_log_binomial(m - 1 - j, places - 1) - _log_binomial(np.array(m), places))
    expected = float(chance @ np.maximum(rest[: len(j)], certain))
    return max(float(gains.max()) - expected, 0.0)


def precision(score: FloatArray, gains: FloatArray, k: int) -> float:
    """Share of the `k` highest scores whose gain is among the `k` largest, in 0..1; all that equal the k-th count."""
    good = gains >= np.sort(gains)[::-1][min(k, len(gains)) - 1]
    inside, border, places = _border(score, k)
    return float((good[inside].sum() + places * good[border].mean()) / min(k, len(gains)))


Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def _border(score: FloatArray, k: int) -> tuple[Mask, Mask, int]:
    """Which scores are surely among the `k` highest, which share the last places, and how many places these are."""
    last = np.sort(score)[::-1][min(k, len(score)) - 1]
    inside = score > last
    return inside, score == last, min(k, len(score)) - int(inside.sum())


def _log_binomial(n: IntArray, k: int) -> FloatArray:
    logarithm: FloatArray = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return logarithm


# ---- intervals ------------------------------------------------------------------------------------------------------


def _ceiling(gains: FloatArray, control: FloatArray | None, counts: IntArray) -> Figures:
    """Mean over the seeds of what one of them scores for the mean of the others."""
    runs = [
        figures_of(own, np.delete(gains, seed, axis=0).mean(0), control, counts=counts)
        for seed, own in enumerate(gains)
    ]
    return _intervals({name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]})


def _intervals(found: Mapping[str, FloatArray]) -> Figures:
    return {name: _interval(values) for name, values in found.items()}


def _interval(values: FloatArray) -> Interval:
    """The first value, of all architectures, between the quantiles of the others, of resamples."""
    return Interval(float(values[0]), *_between(values[1:]))


def _between(values: FloatArray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _checked(name: str, column: FloatArray, n: int) -> FloatArray:
    values = np.asarray(column, dtype=np.float64)
    if values.shape != (n,):
        raise ValueError(f"{name} of shape {values.shape} for {n} architectures: give one number each, shape ({n},)")
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise ValueError(f"{name} of architecture {row} is {values[row]}: leave out what has none")
    return values
