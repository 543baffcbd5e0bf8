"""What devices find alike in a network beyond what is predicted for it: one factor of the residuals of its references.

A network that is slower than predicted on one device tends to be so on others: kernels are chosen and memory is laid
out alike. Part of it is noise of one device, which is no use elsewhere; what the devices have in common is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.latency.predictors import FloatArray

FEWEST = 30  # networks measured on a reference before its residuals tell anything
ROUNDS = 100
_FAR = 3.0  # deviations, beyond which a residual counts no more
_LEAST_NOISE = 0.05  # share of a reference's variance that is always its own


@dataclass(frozen=True, slots=True)
class SharedResidual:
    """One-factor model of logarithmic residuals, fitted by EM (Rubin and Thayer, Psychometrika 47, 1982)."""

    centre: FloatArray  # (references,)
    scale: FloatArray  # (references,), infinite where too little was measured
    loading: FloatArray  # (references,), of residuals of deviation 1 on a factor of variance 1
    noise: FloatArray  # (references,), variance of what is a reference's own

    @classmethod
    def of(cls, predicted_ms: FloatArray, measured_ms: FloatArray) -> SharedResidual:
        """The model of networks predicted and measured, each (networks, references); NaN where one was not measured."""
        residual = np.log(measured_ms / predicted_ms)
        there = np.isfinite(residual)
        told = there.sum(0) >= FEWEST
        centre, scale = np.zeros(len(told)), np.full(len(told), np.inf)
        for i in np.flatnonzero(told):
            column = residual[there[:, i], i]
            centre[i] = np.median(column)
            # deviation of a normal law by the median, which no outlier moves; equal residuals tell nothing
            scale[i] = 1.4826 * np.median(np.abs(column - centre[i])) or np.inf
        z = _scores(residual, centre, scale)
        there = np.isfinite(residual) & np.isfinite(scale)
        loading, noise = np.full(len(told), 0.5), np.full(len(told), 0.75)
        for _ in range(ROUNDS):
            factor, doubt = _factor(z, there, loading, noise)
            squares = (there * (factor**2 + doubt)[:, None]).sum(0)
            loading = (z * factor[:, None]).sum(0) / np.maximum(squares, 1e-12)
            left = (there * ((z - factor[:, None] * loading) ** 2 + doubt[:, None] * loading**2)).sum(0)
            noise = np.maximum(left / np.maximum(there.sum(0), 1), _LEAST_NOISE)
        return cls(centre, scale, loading, noise)

    def __call__(self, predicted_ms: FloatArray, measured_ms: FloatArray) -> FloatArray:
        """`predicted_ms` with the shared part of the residuals, (networks, references).

        As predicted where a network was measured nowhere.
        """
        residual = np.log(measured_ms / predicted_ms)
        there = np.isfinite(residual) & np.isfinite(self.scale)
        factor, _ = _factor(_scores(residual, self.centre, self.scale), there, self.loading, self.noise)
        scale = np.where(np.isfinite(self.scale), self.scale, 0.0)
        shared: FloatArray = predicted_ms * np.exp(factor[:, None] * self.loading * scale)
        return shared


def _scores(residual: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray:
    """Residuals in deviations, 0 where there are none."""
    return np.nan_to_num(np.clip((residual - centre) / scale, -_FAR, _FAR), nan=0.0)


def _factor(
    z: FloatArray, there: NDArray[np.bool_], loading: FloatArray, noise: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mean and variance of each network's factor given its residuals, each (networks,)."""
    doubt = 1 / (1 + there @ (loading**2 / noise))
    return doubt * (z @ (loading / noise)), doubt
