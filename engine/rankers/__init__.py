"""The ranker role: learn a cost from evaluated architectures, predict it for others. One file a ranker.

A file names its class `ranker`. Other packages add theirs by an entry point in the group "hwnas.engine.rankers"
that names such a module or class.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Protocol, Self, cast, runtime_checkable

import numpy as np

from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.objective import Costs


class Ranker(Protocol):
    """Values of architectures nobody evaluated, with doubt. What a fit learns is chosen by the rows told alone."""

    def fit(self, X: IntArray, values: FloatArray) -> Self:
        """Learn from canonical rows (n, genes), n >= 1, and their finite values (n,), minimised.

        Returns itself. What an earlier fit found may be where this one begins. Raises ValueError.
        """
        ...

    def predict(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        """(mean, standard deviation) of the values of canonical rows, each (n,). Raises RuntimeError before a fit."""
        ...

    def draw(self, X: IntArray, n: int, rng: np.random.Generator) -> FloatArray:
        """`n` functions that the data leave possible, at these rows, (n, rows): what rows share in doubt they share."""
        ...


@runtime_checkable
class Pretrainable(Ranker, Protocol):
    """A ranker that can begin with labels that are cheaper than the values: every later fit starts from them."""

    def pretrain(self, X: IntArray, labels: Mapping[str, FloatArray]) -> Self:
        """Learn labels (n,) of canonical rows (n, genes), by name; the first stands in for the values, minimised."""
        ...


class Constructor(Protocol):
    """How every ranker is made."""

    def __call__(self, genes: Sequence[Gene], *, rng: np.random.Generator, covariates: Sequence[Costs] = ()) -> Ranker:
        """`covariates` are costs known of any row that may go along with the values; all chance comes from `rng`."""
        ...


def names() -> tuple[str, ...]:
    """Every ranker installed, sorted."""
    return plugin_names(sys.modules[__name__])


def make(name: str, genes: Sequence[Gene], *, rng: np.random.Generator, covariates: Sequence[Costs] = ()) -> Ranker:
    """The ranker called `name` over these genes. Raises LookupError with the known names.

    >>> ranker = make("gaussian_process", space.genes, rng=np.random.default_rng(0))  # doctest: +SKIP
    >>> mean, std = ranker.fit(X, errors).predict(X_new)  # doctest: +SKIP
    """
    found = load_plugin(sys.modules[__name__], name)
    constructor = cast(Constructor, getattr(found, "ranker", found))
    return constructor(genes, rng=rng, covariates=covariates)
