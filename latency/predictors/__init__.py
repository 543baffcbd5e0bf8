"""The role of a latency predictor: blocks of a network -> milliseconds. One file a kind, found by its name."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from typing import Protocol as Role

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.latency.block import Block
from hwnas.latency.table import LatencyTable

FloatArray = NDArray[np.float64]

MeasuredNetwork = tuple[Sequence[Block], float]  # blocks in order, measured latency in ms
Miss = Literal["error", "estimate"]  # what a predictor does about a block without a latency; never a zero


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted latency of one network; `missing` names the blocks whose latency is an estimate, each once."""

    mean_ms: float
    std_ms: float
    missing: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Predicted latencies of n networks as arrays; an index or a loop gives a `Prediction` each."""

    mean_ms: FloatArray  # (n,)
    std_ms: FloatArray  # (n,)
    missing: tuple[tuple[Block, ...], ...]  # n tuples: the blocks of each network whose latency is an estimate

    def __post_init__(self) -> None:
        if not len(self.mean_ms) == len(self.std_ms) == len(self.missing):
            raise ValueError(
                f"{len(self.mean_ms)} means, {len(self.std_ms)} deviations and {len(self.missing)} lists of missing "
                "blocks: give one of each a network"
            )

    def __len__(self) -> int:
        return len(self.mean_ms)

    def __getitem__(self, index: int) -> Prediction:
        return Prediction(float(self.mean_ms[index]), float(self.std_ms[index]), self.missing[index])

    def __iter__(self) -> Iterator[Prediction]:
        return (self[i] for i in range(len(self)))

    def interval_ms(self, nominal: float = 0.9) -> tuple[FloatArray, FloatArray]:
        """(low, high), each (n,): the normal interval that holds a share `nominal` of the latencies; low is >= 0."""
        half = float(norm.ppf(0.5 + nominal / 2)) * self.std_ms
        return np.maximum(self.mean_ms - half, 0.0), self.mean_ms + half


class LatencyPredictor(Role):
    """Predicts the latency of networks from their blocks, for one device.

    A file of this folder is a predictor where it has
    `for_table(table: LatencyTable, *, miss: Miss) -> LatencyPredictor`, `miss` with a default of its own;
    another package names such a function under the entry-point group "hwnas.latency.predictors".
    """

    def fit(self, networks: Sequence[MeasuredNetwork]) -> None:
        """Learn from whole networks measured in ms. Raises LookupError for a block without a latency."""
        ...

    def predict(self, networks: Sequence[Sequence[Block]]) -> Predictions:
        """Latencies of all `networks`. Raises LookupError for a block without a latency, unless it estimates them."""
        ...


class AdditivePredictor(LatencyPredictor, Role):
    """A predictor whose latency is a rising function of a sum over blocks, which a search takes apart into arrays.

    With `block_ms` and `block_std_ms` summed by gathers, a population costs two gathers a slot:
    `correct(sums)` is its mean and `std_ms(sums, stds)` its deviation.
    """

    def block_ms(self, block: Block) -> float:
        """What `block` adds to the sum, in ms. Raises LookupError for a block without a latency."""
        ...

    def block_std_ms(self, block: Block) -> float:
        """What `block` adds to the sum of deviations: 0 for a measured block, its width in ms for an estimate."""
        ...

    def correct(self, sums: FloatArray) -> FloatArray:
        """Sums of blocks in ms, any shape -> latencies in ms, the same shape; never falling."""
        ...

    def std_ms(self, sums: FloatArray, stds: FloatArray) -> FloatArray:
        """Sums of `block_ms` and of `block_std_ms`, of one shape -> deviations of the latencies in ms, that shape."""
        ...


def predictor_names() -> tuple[str, ...]:
    """Every predictor found, sorted."""
    return plugin_names(sys.modules[__name__])


def predictor_for(table: LatencyTable, *, name: str = "corrected", miss: Miss | None = None) -> LatencyPredictor:
    """The predictor called `name` over `table`, not yet fitted. Raises LookupError that lists the known names.

    `miss` says what to do about blocks that were never measured; left out, the predictor's own way.
    Fit it on `table.measured("fit")`.
    """
    found = load_plugin(sys.modules[__name__], name)
    for_table = getattr(found, "for_table", found)
    options: dict[str, Any] = {} if miss is None else {"miss": miss}  # Any: a plugin's own keyword
    predictor: LatencyPredictor = for_table(table, **options)
    return predictor
