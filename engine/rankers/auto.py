"""The ranker that orders best the rows it has not seen, chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import kendalltau

from hwnas.engine import rankers
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.objective import Costs
from hwnas.engine.rankers import Ranker

CANDIDATES = ("gaussian_process", "ridge", "boosting", "mlp")  # of equals the first is taken
FOLDS = 5
FEWEST = 20  # rows below which four in a fold say nothing: the first candidate is taken
GROWTH = 1.5  # times as many rows, and the choice is made again


@dataclass(frozen=True, slots=True)
class Standing:
    """How well a ranker orders rows it has not seen."""

    name: str
    kendall: tuple[float, ...]  # rank correlation of each fold

    @property
    def mean(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.kendall))

    @property
    def error(self) -> float:
        """Standard error of that mean. Folds share rows: read it as a lower bound."""
        return float(np.std(self.kendall, ddof=1) / np.sqrt(len(self.kendall)))

    def loses_to(self, other: Standing) -> bool:
        """Whether `other` is ahead by more than the standard error of their differences, fold by fold."""
        ahead = np.subtract(other.kendall, self.kendall)
        return bool(ahead.mean() > ahead.std(ddof=1) / np.sqrt(len(ahead)))


def standings(
    names: Sequence[str],
    genes: Sequence[Gene],
    X: IntArray,
    values: FloatArray,
    *,
    rng: np.random.Generator,
    covariates: Sequence[Costs] = (),
    folds: int = FOLDS,
) -> tuple[Standing, ...]:
    """Cross-validated rank correlation (Kendall's tau-b) of each named ranker, over the same folds, in that order.

    A fold whose values or predictions are all equal counts 0. Raises ValueError for fewer than two rows a fold.
    """
    if len(X) < 2 * folds:
        raise ValueError(f"{len(X)} rows are too few for {folds} folds: give {2 * folds} or more")
    fold = rng.permutation(len(X)) % folds
    found = []
    for name in names:
        taus = []
        for k in range(folds):
            ranker = rankers.make(name, genes, rng=rng.spawn(1)[0], covariates=covariates)
            mean, _ = ranker.fit(X[fold != k], values[fold != k]).predict(X[fold == k])
            taus.append(float(np.nan_to_num(kendalltau(mean, values[fold == k]).statistic)))
        found.append(Standing(name, tuple(taus)))
    return tuple(found)


def best(found: Sequence[Standing]) -> str:
    """The first that does not lose to the one with the highest mean."""
    leader = max(found, key=lambda standing: standing.mean)
    return next(standing.name for standing in found if not standing.loses_to(leader))


class Auto:
    """Chooses when it is fitted and again when the rows have grown by half; `standings` say on what grounds."""

    def __init__(self, genes: Sequence[Gene], *, rng: np.random.Generator, covariates: Sequence[Costs] = ()) -> None:
        self._genes, self._rng, self._covariates = tuple(genes), rng, tuple(covariates)
        self._chosen_at = 0
        self._ranker: Ranker | None = None
        self.name = CANDIDATES[0]
        self.standings: tuple[Standing, ...] = ()

    def fit(self, X: IntArray, values: FloatArray) -> Self:
        """Choose if it is time, then fit the chosen one on all rows."""
        if self._ranker is None or len(X) >= GROWTH * self._chosen_at:
            before = self.name if self._ranker is not None else None
            if len(X) >= FEWEST:
                self.standings = standings(
                    CANDIDATES, self._genes, X, values, rng=self._rng, covariates=self._covariates
                )
                self.name = best(self.standings)
                self._chosen_at = len(X)
            if self.name != before:
                self._ranker = rankers.make(
                    self.name, self._genes, rng=self._rng.spawn(1)[0], covariates=self._covariates
                )
        assert self._ranker is not None
        self._ranker.fit(X, values)
        return self

    def predict(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        """As the chosen one."""
        return self._fitted().predict(X)

    def draw(self, X: IntArray, n: int, rng: np.random.Generator) -> FloatArray:
        """As the chosen one."""
        return self._fitted().draw(X, n, rng)

    def _fitted(self) -> Ranker:
        if self._ranker is None:
            raise RuntimeError("this ranker has learned nothing yet: call fit first")
        return self._ranker


ranker = Auto
