"""Options that are not worth their place: scored by the architectures that hold them, and taken out of a space.

After Xia, Xiao, Wang and Zheng, "Progressive Automatic Design of Search Space for One-Shot Neural Architecture Search"
(PAD-NAS, WACV 2022): operations are pruned layer by layer, so that layers end with different ones, in stages between
which the supernet trains on in what is left. How an operation is scored is not settled by what is published; the four
scores here are our definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log10
from typing import Literal

import numpy as np

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import BoolArray, FloatArray, Gene, IntArray, SearchSpace
from hwnas.engine.genome import Genome

Score = Literal["additive", "marginal", "topk_freq", "cost_adjusted"]
Mask = tuple[tuple[bool, ...], ...]  # by gene and option, as `SearchSpace.restrict` takes it

RIDGE = 1.0  # rows' worth of shrinkage of an option's effect: options that few rows hold say little
BATCHES = 200  # of `n` draws each, after which a limit is said to be kept by too few


@dataclass(frozen=True, slots=True)
class OperationPruner:
    """Which options of each gene stay.

    `cost_adjusted` is the mean value of the rows that hold an option, of what a line through their costs leaves of the
    values: an option has to be worth more than it costs. `marginal` is that mean of the values as they are; `topk_freq`
    how seldom the best `top` of the rows hold the option. `additive` fits `value = a + sum of an effect an option` by
    ridge regression: under a limit an expensive option goes along with cheap ones elsewhere, which a mean counts as its
    own merit or fault. But where expensive options are the good ones, only they stay, and no network of them keeps the
    limit: on NAS-Bench-201 in 16 of 20 runs, by `marginal` in 6, by the other two in none (benchmarks/pad_nas.py).

    An option stays that is among the best `keep` of its gene's, or no worse than the best by more than `margin`. The
    margin, in units of the values (of shares for topk_freq), is the safer rule: what is pruned never comes back. At
    least `min_options` of a gene stay, and so does an option that no row holds: nothing is known of it.
    """

    score: Score = "cost_adjusted"
    keep: float | None = 0.5  # share of the options that are there, rounded up
    margin: float | None = None
    min_options: int = 2  # or genes freeze early
    top: float = 0.1  # share of the rows

    def __post_init__(self) -> None:
        if self.keep is None and self.margin is None:
            raise ValueError("a pruner without keep and margin keeps nothing: give one of them")
        if not (self.keep is None or 0 < self.keep <= 1) or not 0 < self.top <= 1:
            raise ValueError(f"keep={self.keep} and top={self.top} are shares: give more than 0, 1 at most")
        if self.min_options < 1:
            raise ValueError(f"min_options={self.min_options} would leave a gene without options: give 1 or more")

    def scores(
        self, genes: Sequence[Gene], X: IntArray, values: FloatArray, costs: FloatArray | None = None
    ) -> FloatArray:
        """Score of every option, (genes, most options), the lower the better; NaN for what no row holds.

        X (n, genes) canonical, values (n,) minimised, costs (n,) for `cost_adjusted`. Raises ValueError.
        """
        if len(X) < 2 or values.shape != (len(X),) or not np.isfinite(values).all():
            raise ValueError(f"{len(X)} rows need as many finite values, at least two: got shape {values.shape}")
        held = _held(genes, X)
        counts = held.sum(0)
        if self.score == "additive":
            found = _effects(held, values)
        elif self.score == "topk_freq":
            best = np.argsort(values, kind="stable")[: ceil(self.top * len(X))]
            found = -held[best].mean(0)
        else:
            if self.score == "cost_adjusted":
                values = _beyond_costs(values, costs)
            found = (held * values[:, None, None]).sum(0) / np.maximum(counts, 1)
        return np.where(counts > 0, found, np.nan)

    def mask(self, genes: Sequence[Gene], X: IntArray, values: FloatArray, costs: FloatArray | None = None) -> Mask:
        """What stays of what the genes allow, for `restrict`: see `scores`. Raises ValueError."""
        rows = []
        for gene, scores in zip(genes, self.scores(genes, X, values, costs), strict=True):
            known = gene.choices[np.isfinite(scores[gene.choices])]
            ordered = known[np.argsort(scores[known], kind="stable")]
            fewest = (
                self.min_options if self.keep is None else max(self.min_options, ceil(self.keep * len(gene.choices)))
            )
            stays = set(ordered[:fewest].tolist()) | (set(gene.choices.tolist()) - set(known.tolist()))
            if self.margin is not None and len(ordered):
                stays |= {int(i) for i in ordered if scores[i] <= scores[ordered[0]] + self.margin}
            rows.append(tuple(i in stays for i in range(len(gene.options))))
        return tuple(rows)


def _held(genes: Sequence[Gene], X: IntArray) -> BoolArray:
    """Which options each row holds in genes that are on, (n, genes, most options)."""
    most = max(len(gene.options) for gene in genes)
    held: BoolArray = (np.arange(most) == X[:, :, None]) & arch.active(genes, X)[:, :, None]
    return held


def _effects(held: BoolArray, values: FloatArray) -> FloatArray:
    """Ridge regression of centred values on which options are held, (genes, most options)."""
    A = held.reshape(len(held), -1).astype(np.float64)
    A = A - A.mean(0)
    normal = A.T @ A + RIDGE * np.eye(A.shape[1])
    return np.asarray(np.linalg.solve(normal, A.T @ (values - values.mean())).reshape(held.shape[1:]))


def _beyond_costs(values: FloatArray, costs: FloatArray | None) -> FloatArray:
    """What a line through the costs leaves of the values, (n,)."""
    if costs is None or costs.shape != values.shape:
        raise ValueError("cost_adjusted needs a cost for each row: give costs, such as predicted latencies")
    spread = costs - costs.mean()
    total = float(spread @ spread)
    return np.asarray(values - (spread @ values / total * spread if total > 0 else 0.0))


# ---- draws ----------------------------------------------------------------------------------------------------------


def sample_architectures(genes: Sequence[Gene], n: int, rng: np.random.Generator) -> IntArray:
    """`n` rows, every architecture alike, (n, genes). Rows may repeat.

    `architecture.sample` instead draws every option of a gene alike, and so prefers what few other genes depend on.
    """
    count = arch.size(genes)
    numbers = rng.integers(0, count, n).tolist() if count < 2**62 else [_below(count, rng) for _ in range(n)]
    return Genome.of(genes).decode(numbers)


def _below(count: int, rng: np.random.Generator) -> int:
    """Uniform over 0 to count - 1: numbers of enough bits until one is small enough."""
    bits = count.bit_length()
    while True:
        number = int.from_bytes(rng.bytes(bits // 8 + 1)) >> (8 * (bits // 8 + 1) - bits)
        if number < count:
            return number


def feasible_sample(
    genes: Sequence[Gene], n: int, rng: np.random.Generator, violation: Callable[[IntArray], FloatArray]
) -> IntArray:
    """`n` random rows that keep a limit, (n, genes), by drawing again. Raises ValueError where too few do."""
    kept: list[IntArray] = []
    found = 0
    for _ in range(BATCHES):
        X = arch.sample(genes, n, rng)
        kept.append(X[violation(X) <= 0])
        found += len(kept[-1])
        if found >= n:
            return np.concatenate(kept)[:n]
    raise ValueError(f"only {found} of {BATCHES * n} random networks keep the limit: raise it, or ask for fewer")


# ---- stages ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage of pruning began with and left."""

    log10_size: float  # of the space that it drew from
    mean_value: float  # of its draws
    best_value: float
    hamming: float  # genes in which two of its draws differ, on average
    mask: Mask  # what it left


def shrink(
    space: SearchSpace,
    pruner: OperationPruner,
    *,
    stages: int,
    draws: int,
    train: Callable[[SearchSpace, int], None],
    values: Callable[[SearchSpace, IntArray], FloatArray],
    violation: Callable[[IntArray], FloatArray],
    rng: np.random.Generator,
    costs: Callable[[IntArray], FloatArray] | None = None,
) -> tuple[SearchSpace, tuple[Stage, ...]]:
    """Train in the space, judge its options by `draws` networks within the limit, take out the worst; and again.

    `train(space, stage)` goes on with the weights it has, with its optimiser and schedule started anew (a rate that has
    fallen to nothing teaches no later stage). `values(space, X)` are minimised, of inherited weights with BatchNorm
    recalibrated for each row. The space that is left, and a record a stage. Raises ValueError where what is left does
    not keep the limit.
    """
    records = []
    for stage in range(stages):
        train(space, stage)
        X = feasible_sample(space.genes, draws, rng, violation)
        found = values(space, X)
        mask = pruner.mask(space.genes, X, found, None if costs is None else costs(X))
        size = log10(arch.size(space.genes))
        records.append(Stage(size, float(found.mean()), float(found.min()), diversity(X), mask))
        space = space.restrict(mask)
        try:
            feasible_sample(space.genes, draws, rng, violation)
        except ValueError as error:
            said = f"stage {stage + 1} of pruning by {pruner.score} leaves too little within the limit ({error})"
            raise ValueError(f"{said}: keep more options, or score them by cost_adjusted") from error
    return space, tuple(records)


def diversity(X: IntArray) -> float:
    """Genes in which two different rows of (n, genes) differ, on average."""
    n = len(X)
    if n < 2:
        return 0.0
    same = sum(float((np.bincount(column) ** 2).sum() - n) for column in X.T)
    return float(X.shape[1] - same / (n * (n - 1)))
