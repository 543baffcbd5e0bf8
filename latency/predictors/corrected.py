"""Sum of the blocks' latencies, corrected by a handful of networks measured whole.

A block measured alone finds its weights hot in the cache and pays a call of its own; inside a network it does neither.
A slope, a constant, a charge a block and one a megabyte of weights repair the sum: which of them the measured networks
can bear is decided by leaving each out in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from typing import Protocol as Role

import numpy as np
from numpy.typing import NDArray

from hwnas.latency.block import Block
from hwnas.latency.predictors import FloatArray, MeasuredNetwork, Miss, Predictions
from hwnas.latency.table import LatencyTable

Form = Literal[
    "sum", "slope", "slope+constant", "slope+block", "slope+weights", "slope+constant+block", "slope+block+weights"
]

# Simplest first: the later one must be better to be chosen.
_TERMS: dict[Form, tuple[str, ...]] = {
    "slope": ("sum",),
    "slope+constant": ("sum", "one"),
    "slope+block": ("sum", "blocks"),
    "slope+weights": ("sum", "weights"),
    "slope+constant+block": ("sum", "one", "blocks"),
    "slope+block+weights": ("sum", "blocks", "weights"),
}
# A form needs this many networks a coefficient, or its leave-one-out error is luck.
_NETWORKS_A_TERM = 3
# Plain sums of isolated blocks were 10 to 16 % below the whole network on x86; twice that where nothing was measured.
_STD_UNFITTED = 0.25
# One network shows the slope but not how it varies: leave-one-out errors of one slope reached 3.2 %, tripled.
_STD_ONE_NETWORK = 0.1


@dataclass(frozen=True, slots=True)
class Correction:
    """latency_ms = constant_ms + slope * (sum_ms + block_overhead_ms * blocks + fetch_ms_per_mb * MB of weights).

    With its error on unseen networks. The last term is what weights cost that a block timed alone found in the cache.
    """

    form: Form = "sum"
    slope: float = 1.0
    constant_ms: float = 0.0
    block_overhead_ms: float = 0.0
    fetch_ms_per_mb: float = 0.0
    relative_std: float = _STD_UNFITTED
    errors: tuple[tuple[Form, float], ...] = ()  # leave-one-out relative error (rms) of every form tried


@dataclass(frozen=True, slots=True)
class Sums:
    """What networks are made of, each (networks,)."""

    ms: FloatArray  # latencies of their blocks
    blocks: FloatArray  # how many
    weights_mb: FloatArray

    def __getitem__(self, kept: NDArray[np.bool_] | slice) -> Sums:
        return Sums(self.ms[kept], self.blocks[kept], self.weights_mb[kept])


def fit_correction(sums: Sums, measured_ms: FloatArray) -> Correction:
    """Least squares on the relative error; the form with the smallest leave-one-out error.

    `measured_ms` has shape (networks,). Raises ValueError.
    """
    n = len(measured_ms)
    if n and not (np.all(measured_ms > 0) and np.all(sums.ms > 0)):
        raise ValueError("measured latencies and sums of blocks are positive: a network of 0 ms was not measured")
    if n == 0:
        return Correction()
    errors = {form: _left_out(form, sums, measured_ms) for form in _affordable(n)}
    form = min(errors, key=lambda form: errors[form])  # the first of equals: the simplest
    fitted = _fitted(form, sums, measured_ms)
    if n == 1:
        return replace(fitted, relative_std=_STD_ONE_NETWORK)
    return replace(fitted, relative_std=errors[form], errors=tuple(errors.items()))


class BlockEstimator(Role):
    """Latencies of blocks that were never measured."""

    def estimate(self, blocks: Sequence[Block]) -> tuple[FloatArray, FloatArray]:
        """(mean, standard deviation) in ms, each (blocks,). Raises LookupError for a block it can say nothing of."""
        ...


class CorrectedSum:
    """Corrected sum of latencies; before `fit`, the plain sum with a wide deviation."""

    def __init__(
        self,
        latencies_ms: Mapping[Block, float],
        *,
        device: str = "the device",
        failures: Mapping[Block, str] | None = None,
        estimator: BlockEstimator | None = None,
    ) -> None:
        """Blocks without a latency are asked of `estimator`; without one they are a LookupError."""
        self._latencies_ms = latencies_ms
        self._device = device
        self._failures = failures or {}
        self._estimator = estimator
        self._estimates_ms: dict[Block, tuple[float, float]] = {}  # (mean, deviation) of blocks asked for so far
        self.correction = Correction()

    def fit(self, networks: Sequence[MeasuredNetwork]) -> None:
        """Fit the correction on (blocks, measured ms) of whole networks. Raises LookupError for a missing block."""
        blocks = [blocks for blocks, _ in networks]
        sums_ms, _, counts = self._sums(blocks)
        weights_mb = np.array([sum(map(weight_megabytes, each)) for each in blocks], dtype=np.float64)
        measured_ms = np.array([latency_ms for _, latency_ms in networks], dtype=np.float64)
        self.correction = fit_correction(Sums(sums_ms, counts, weights_mb), measured_ms)

    def predict(self, networks: Sequence[Sequence[Block]]) -> Predictions:
        """Latencies of all `networks`. Raises LookupError for missing blocks that nothing estimates."""
        sums_ms, stds_ms, _ = self._sums(networks)
        sums_ms = sums_ms + np.array([sum(map(self._charge_ms, blocks)) for blocks in networks])
        missing = tuple(
            tuple(dict.fromkeys(block for block in blocks if block not in self._latencies_ms)) for blocks in networks
        )
        return Predictions(self.correct(sums_ms), self.std_ms(sums_ms, stds_ms), missing)

    def block_ms(self, block: Block) -> float:
        """What `block` adds to the sum that `correct` takes: its latency and its share of the correction, in ms."""
        return self._block(block)[0] + self._charge_ms(block)

    def block_std_ms(self, block: Block) -> float:
        """Deviation of the estimate of `block` in ms; 0 where it was measured, whose noise `fit` has seen already."""
        return self._block(block)[1]

    def correct(self, sums: FloatArray) -> FloatArray:
        """Sums of `block_ms` over a network's blocks, any shape -> latencies in ms, the same shape."""
        return self.correction.constant_ms + self.correction.slope * np.asarray(sums, dtype=np.float64)

    def std_ms(self, sums: FloatArray, stds: FloatArray) -> FloatArray:
        """Deviations in ms of the latencies with these sums of `block_ms` and of `block_std_ms`, the same shape.

        The estimates' deviations are added up, not their squares: estimates of blocks of one kind err together, and
        the sum bounds the deviation whatever their correlation.
        """
        seen = self.correction.relative_std * np.abs(self.correct(sums))
        return np.hypot(seen, self.correction.slope * np.asarray(stds, dtype=np.float64))

    def _charge_ms(self, block: Block) -> float:
        """What the correction adds to a block's latency."""
        fetch = self.correction.fetch_ms_per_mb
        return self.correction.block_overhead_ms + (fetch * weight_megabytes(block) if fetch else 0.0)

    def _sums(self, networks: Sequence[Sequence[Block]]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Sums of latencies and of deviations in ms, and numbers of blocks, each (networks,)."""
        self._prepare([block for blocks in networks for block in blocks])
        pairs = [[self._block(block) for block in blocks] for blocks in networks]
        sums_ms = np.array([sum(mean for mean, _ in pair) for pair in pairs], dtype=np.float64)
        stds_ms = np.array([sum(std for _, std in pair) for pair in pairs], dtype=np.float64)
        return sums_ms, stds_ms, np.array([len(pair) for pair in pairs], dtype=np.float64)

    def _block(self, block: Block) -> tuple[float, float]:
        latency_ms = self._latencies_ms.get(block)
        if latency_ms is not None:
            return latency_ms, 0.0
        if block not in self._estimates_ms:
            self._prepare([block])
        return self._estimates_ms[block]

    def _prepare(self, blocks: Sequence[Block]) -> None:
        """Estimate what was not measured, all at once. Raises LookupError where nothing estimates."""
        distinct = list(dict.fromkeys(blocks))
        missing = [block for block in distinct if block not in self._latencies_ms and block not in self._estimates_ms]
        failed = [block for block in missing if block in self._failures]
        if not missing:
            return
        if self._estimator is not None and not failed:  # what failed has no latency to estimate
            means_ms, stds_ms = self._estimator.estimate(missing)
            found = zip(means_ms.tolist(), stds_ms.tolist(), strict=True)
            self._estimates_ms.update(zip(missing, found, strict=True))
            return
        reason = f", {len(failed)} of them tried and failed ({self._failures[failed[0]]})" if failed else ""
        raise LookupError(
            f"{len(missing)} of {len(distinct)} blocks have no latency on {self._device!r}, first {missing[0]}"
            f"{reason}: run `hwnas table build --device {self._device}`"
        )


def for_table(table: LatencyTable, *, miss: Miss = "error") -> CorrectedSum:
    """The corrected sum over what `table` holds now, not yet fitted; with `miss="estimate"` what `kernels` gives."""
    if miss == "estimate":
        from hwnas.latency.predictors import kernels  # which stands on this file

        return kernels.for_table(table, miss=miss)
    return CorrectedSum(table.latencies_ms(), device=table.device.name, failures=table.failures())


def _affordable(n: int) -> list[Form]:
    return [form for form, terms in _TERMS.items() if len(terms) == 1 or n >= _NETWORKS_A_TERM * len(terms)]


def weight_megabytes(block: Block) -> float:
    """Weights of a block in MB at four bytes each; 0 where its factory is not installed, so that nobody knows."""
    from hwnas.latency.predictors._features import block_costs  # loads torch's counter only where something is fitted

    try:
        _, _, weights, _ = block_costs(block)
    except LookupError:
        return 0.0
    return 4e-6 * weights


def _fitted(form: Form, sums: Sums, measured_ms: FloatArray) -> Correction:
    """A slope that is not positive, or weights that come for less than nothing, are refused: a simpler form then."""
    columns = {"sum": sums.ms, "one": np.ones_like(sums.ms), "blocks": sums.blocks, "weights": sums.weights_mb}
    terms = _TERMS[form]
    # divided by the measured latency, the residual of (predicted - measured) is the relative error
    design = np.stack([columns[term] for term in terms], axis=1) / measured_ms[:, None]  # (networks, terms)
    solved, *_ = np.linalg.lstsq(design, np.ones(len(measured_ms)), rcond=None)
    found = dict(zip(terms, map(float, solved), strict=True))
    slope, fetch = found["sum"], found.get("weights", 0.0)
    if fetch < 0:
        return _fitted("slope+block" if "blocks" in terms else "slope", sums, measured_ms)
    if slope <= 0:
        return _fitted("slope", sums, measured_ms)
    return Correction(form, slope, found.get("one", 0.0), found.get("blocks", 0.0) / slope, fetch / slope)


def _left_out(form: Form, sums: Sums, measured_ms: FloatArray) -> float:
    """Root of the mean squared relative error on each network, fitted on the others; infinite for a single network."""
    n = len(measured_ms)
    if n == 1:
        return float("inf")
    relative = np.empty(n)
    for i in range(n):
        kept = np.arange(n) != i
        found, one = _fitted(form, sums[kept], measured_ms[kept]), sums[slice(i, i + 1)]
        added = found.block_overhead_ms * one.blocks + found.fetch_ms_per_mb * one.weights_mb
        predicted_ms = found.constant_ms + found.slope * (one.ms + added)
        relative[i] = predicted_ms[0] / measured_ms[i] - 1
    return float(np.sqrt(np.mean(relative**2)))
