"""What rankers see of an architecture, and of the values they learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.engine.architecture import BoolArray, FloatArray, Gene, IntArray
from hwnas.engine.genome import Genome
from hwnas.engine.objective import Costs


@dataclass(frozen=True, slots=True)
class Description:
    """Rows as columns of numbers. A gene that is off is told from every option, and lies below the smallest."""

    genome: Genome
    covariates: tuple[Costs, ...]

    @classmethod
    def of(cls, genes: Sequence[Gene], covariates: Sequence[Costs] = ()) -> Description:
        """The description of rows over these genes."""
        return cls(Genome.of(genes), tuple(covariates))

    @property
    def widths(self) -> IntArray:
        """Columns of each gene's indicators, (genes,)."""
        gated = np.array([gene.needs is not None for gene in self.genome.genes], dtype=np.int64)
        widths: IntArray = self.genome.lengths + gated
        return widths

    def columns(self, X: IntArray) -> FloatArray:
        """`indicators`, `places` and `costs` side by side, (n, columns)."""
        on = self.genome.active(X)
        return np.concatenate([self._indicators(X, on), self._places(X, on), self.costs(X)], axis=1)

    def indicators(self, X: IntArray) -> FloatArray:
        """One column an option, and one for off where a gene can be, (n, sum of widths)."""
        return self._indicators(X, self.genome.active(X))

    def places(self, X: IntArray) -> FloatArray:
        """Place of each gene's option among its options, up to 1 for the last, 0 for off, (n, genes)."""
        return self._places(X, self.genome.active(X))

    def costs(self, X: IntArray) -> FloatArray:
        """The covariates, (n, covariates)."""
        return np.stack([cost(X) for cost in self.covariates], axis=1) if self.covariates else np.zeros((len(X), 0))

    def _indicators(self, X: IntArray, on: BoolArray) -> FloatArray:
        ends = np.cumsum(self.widths)
        # the last column of a gated gene is for off
        place = np.where(on, X + (ends - self.widths), ends - 1)
        columns = np.zeros((len(X), int(ends[-1])))
        columns[np.arange(len(X))[:, None], place] = 1
        return columns

    def _places(self, X: IntArray, on: BoolArray) -> FloatArray:
        return np.where(on, (X + 1) / self.genome.lengths, 0.0)


@dataclass(frozen=True, slots=True)
class Warp:
    """Values as they are up to their median, and by their logarithm above: a failed network must not bend the rest.

    One of ten cells that train to chance would otherwise set the scale on which all good ones look alike.
    """

    knee: float
    scale: float  # infinite where nothing is bent
    mean: float
    std: float
    ends: tuple[float, float]  # of the warped values

    @classmethod
    def of(cls, values: FloatArray) -> Warp:
        """The warp of these values, after which they have mean 0 and deviation 1."""
        low, knee = np.quantile(values, [0.1, 0.5])
        # below a billionth of the range the better half is all one value: nothing tells how far is far
        scale = float(knee - low) if knee - low > 1e-9 * np.ptp(values) else np.inf
        straight = cls(float(knee), scale, 0.0, 1.0, (-np.inf, np.inf))
        bent = straight(values)
        mean, std = float(bent.mean()), float(bent.std()) or 1.0
        bent = (bent - mean) / std
        return cls(straight.knee, straight.scale, mean, std, (float(bent.min()), float(bent.max())))

    def __call__(self, values: FloatArray) -> FloatArray:
        """The warped values, same shape."""
        above = np.maximum(values - self.knee, 0)
        bent = np.where(above > 0, self.scale * np.log1p(above / self.scale), 0.0) if np.isfinite(self.scale) else above
        warped: FloatArray = (np.minimum(values, self.knee) + bent - self.mean) / self.std
        return warped

    def inverse(self, warped: FloatArray) -> FloatArray:
        """The values that warp to these; beyond the range that was seen, no farther than that range again."""
        low, high = self.ends
        if np.isfinite(high - low):
            warped = np.clip(warped, low - (high - low), high + (high - low))
        bent = warped * self.std + self.mean - self.knee
        above = np.maximum(bent, 0)
        unbent = self.scale * np.expm1(above / self.scale) if np.isfinite(self.scale) else above
        values: FloatArray = self.knee + np.minimum(bent, 0) + unbent
        return values

    def moments(self, mean: FloatArray, std: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Median and half the width of one deviation either way, in values, of normal warped ones."""
        return self.inverse(mean), (self.inverse(mean + std) - self.inverse(mean - std)) / 2


def checked(X: IntArray, values: FloatArray, description: Description) -> tuple[IntArray, FloatArray]:
    """Rows in canonical form and their values. Raises ValueError for shapes that do not fit and values not finite."""
    X = description.genome.check(X)
    values = np.asarray(values, dtype=np.float64)
    if len(X) == 0 or values.shape != (len(X),):
        raise ValueError(f"{len(X)} rows and values of shape {values.shape}: give one value a row, of one row or more")
    if not np.isfinite(values).all():
        raise ValueError(f"the value of row {int(np.argmin(np.isfinite(values)))} is not finite: leave failed rows out")
    return X, values
