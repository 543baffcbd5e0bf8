"""The role of a latency predictor: blocks of a network -> milliseconds. One file a kind, found by its name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol as Role

import numpy as np
from numpy.typing import NDArray

from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.latency.block import Block
from hwnas.latency.table import LatencyTable

FloatArray = NDArray[np.float64]

MeasuredNetwork = tuple[Sequence[Block], float]  # blocks in order, measured latency in ms


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted latency of one network; with blocks missing it is a lower estimate and says so."""

    mean_ms: float
    std_ms: float
    missing: tuple[Block, ...] = ()


class LatencyPredictor(Role):
    """Predicts the latency of networks from their blocks, for one device.

    A file of this folder is a predictor where it has
    `for_table(table: LatencyTable) -> LatencyPredictor`;
    another package names such a function under the entry-point group "hwnas.latency.predictors".
    """

    def fit(self, networks: Sequence[MeasuredNetwork]) -> None:
        """Learn from whole networks measured in ms. Raises LookupError for a block without a latency."""
        ...

    def predict(self, networks: Sequence[Sequence[Block]]) -> list[Prediction]:
        """One prediction a network. Raises LookupError for a block without a latency, unless told otherwise."""
        ...


class AdditivePredictor(LatencyPredictor, Role):
    """A predictor whose latency is a rising function of a sum over blocks, which a search takes apart into arrays."""

    def block_ms(self, block: Block) -> float:
        """What `block` adds to the sum, in ms. Raises LookupError for a block without a latency."""
        ...

    def correct(self, sums: FloatArray) -> FloatArray:
        """Sums of blocks in ms, any shape -> latencies in ms, the same shape; never falling."""
        ...


def predictor_names() -> tuple[str, ...]:
    """Every predictor found, sorted."""
    return plugin_names(sys.modules[__name__])


def predictor_for(table: LatencyTable, *, name: str = "corrected") -> LatencyPredictor:
    """The predictor called `name` over `table`, not yet fitted. Raises LookupError that lists the known names.

    Fit it on `table.measured("fit")`.
    """
    found = load_plugin(sys.modules[__name__], name)
    for_table = getattr(found, "for_table", found)
    predictor: LatencyPredictor = for_table(table)
    return predictor
