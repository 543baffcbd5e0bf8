"""Spaces whose every figure is in a table: architectures x metrics, from Parquet, CSV or a data frame.

Nothing is trained or timed: an objective is a look-up. Published benchmarks are such tables, and so is what a team has
measured before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, FloatArray, Gene, IntArray, Slot
from hwnas.engine.dataset import DataError
from hwnas.engine.front import non_dominated
from hwnas.engine.objective import Constraint, Objective
from hwnas.latency.block import Value

KEY_LIMIT = 2**62  # keys are 64-bit integers


class Metric(BaseModel):
    """A column that can be an objective. A maximised one is turned as 1 - scale * value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    unit: str = ""
    maximised: bool = False
    scale: float = Field(1.0, gt=0)  # 0.01 makes shares of percentages


class Config(BaseModel):
    """Where the table is, and what its columns mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["tabular"] = "tabular"
    path: Path
    genes: tuple[str, ...] = Field(min_length=1)  # columns; options are the values that occur, sorted
    metrics: tuple[Metric, ...] = Field(min_length=1)
    partial: bool = False  # architectures that are not in the table are infeasible instead of an error


@dataclass(frozen=True, slots=True)
class TrueFront:
    """The rows of a table that no other row beats, sorted by the first metric."""

    X: IntArray  # (n, genes)
    costs: FloatArray  # (n, metrics), minimised


@dataclass(frozen=True)
class TabularSpace:
    """Architectures and their metrics; a SearchSpace without slots and without a supernet."""

    genes: tuple[Gene, ...]
    X: IntArray  # (rows, genes), canonical, no row twice
    metrics: tuple[Metric, ...]
    costs: FloatArray  # (rows, metrics), minimised
    index: RowIndex
    partial: bool = False
    slots: tuple[Slot, ...] = ()

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        columns: Sequence[str | Gene],
        metrics: Sequence[Metric],
        *,
        partial: bool = False,
        source: str = "the table",
    ) -> TabularSpace:
        """The space of a data frame.

        A gene is a column's name, its options the values that occur; or a Gene named after a column, which says
        which options there are, in which order, and which other gene switches it on. Raises DataError: a column or
        a figure that is missing, a value that is no option, an architecture with two rows, a table that does not
        hold the whole space and is not said to be partial.
        """
        if frame.empty:
            raise DataError(f"{source}: no rows: give at least one architecture")
        genes = tuple(gene if isinstance(gene, Gene) else _gene(frame, gene, source) for gene in columns)
        X = np.stack([_indices(frame, gene, source) for gene in genes], axis=1)
        X = np.where(arch.active(genes, np.maximum(X, 0)), X, 0)  # a gene that is off may hold anything
        if (X < 0).any():
            row, g = np.argwhere(X < 0)[0]
            value = frame[genes[g].name].tolist()[row]  # as a plain value
            raise DataError(f"{source}: row {row}: {genes[g].name} is {value!r}: choose from {genes[g].options}")
        order = np.lexsort(X.T)
        repeated = np.flatnonzero((X[order[1:]] == X[order[:-1]]).all(1))
        if len(repeated):
            first, second = sorted(order[repeated[0] : repeated[0] + 2].tolist())
            raise DataError(
                f"{source}: rows {first} and {second} are one architecture, {_shown(genes, X[first])}: "
                "average such rows or drop all but one"
            )
        if not partial and len(X) < arch.size(genes):
            raise DataError(
                f"{source}: {len(X)} of {arch.size(genes)} architectures are there: give the rest, or say partial=True "
                "to make them infeasible"
            )
        costs = np.stack([_costs(frame, metric, source) for metric in metrics], axis=1)
        return cls(genes, X, tuple(metrics), costs, RowIndex.of(X, [len(gene.options) for gene in genes]), partial)

    def objective(self, column: str, *, cheap: bool = False) -> Objective:
        """A metric as an objective; an architecture that a partial table lacks costs infinity. Raises LookupError."""
        i = self._column(column)
        metric = self.metrics[i]
        return Objective(column, metric.unit, lambda X: self.look_up(X)[:, i], metric.maximised, cheap)

    def constraint(self) -> Constraint:
        """Only what is in the table is feasible: for searches of a partial one."""
        return Constraint("outside the table", "", lambda X: (self.index.find(X) < 0).astype(np.float64), upper=0.5)

    def look_up(self, X: IntArray) -> FloatArray:
        """Costs of canonical rows, (n, metrics); of one that is not there infinity if the table is partial.

        Raises LookupError for it if the table is said to be whole.
        """
        found = self.index.find(np.asarray(X, dtype=np.int64))
        missing = found < 0
        if not missing.any():
            return self.costs[found]
        if not self.partial:
            raise LookupError(
                f"{missing.sum()} of {len(X)} architectures are not in the table, first "
                f"{_shown(self.genes, X[missing.argmax()])}: ask canonical rows of this space, or say partial=True"
            )
        return np.where(missing[:, None], np.inf, self.costs[found])

    def true_front(self, columns: Sequence[str]) -> TrueFront:
        """The exact front over these metrics; equal costs all count. Raises LookupError for an unknown column."""
        costs = self.costs[:, [self._column(column) for column in columns]]
        allowed = np.ones(len(self.X), dtype=bool)
        for i, gene in enumerate(self.genes):
            if gene.allowed is not None:
                off = ~arch.active(self.genes, self.X)[:, i]
                allowed &= off | np.isin(self.X[:, i], gene.choices)
        rows = np.flatnonzero(allowed)
        rows = rows[non_dominated(costs[rows])]
        rows = rows[np.lexsort(costs[rows].T[::-1])]
        return TrueFront(self.X[rows], costs[rows])

    def restrict(self, mask: Sequence[Sequence[bool]]) -> TabularSpace:
        """The same table with only the masked options allowed."""
        return replace(self, genes=arch.restrict(self.genes, mask))

    def input_shape(self, architecture: Architecture) -> tuple[int, ...]:
        """Raises LookupError: a table has no networks."""
        raise LookupError(f"a table has no network for {architecture}: search its objectives, nothing is built")

    def supernet(self) -> nn.Module:
        """Raises LookupError: a table has no networks."""
        raise LookupError("a table has no supernet to train: search its objectives (examples/nasbench201.py)")

    def _column(self, column: str) -> int:
        known = [metric.column for metric in self.metrics]
        if column not in known:
            raise LookupError(f"no metric is called {column!r}: the metrics are {', '.join(known)}")
        return known.index(column)


def build(config: Config, *, in_channels: int = 0, classes: int = 0) -> TabularSpace:  # noqa: ARG001  # see the role
    """The space of a Parquet or CSV file. Raises DataError that names the file."""
    frame = read_table(config.path, [*config.genes, *(metric.column for metric in config.metrics)])
    return TabularSpace.of(frame, config.genes, config.metrics, partial=config.partial, source=str(config.path))


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A table by its ending, .parquet or .csv. Raises DataError that names the file."""
    readers = {".parquet": pd.read_parquet, ".csv": pd.read_csv}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: a table ends in {' or '.join(readers)}: convert it")
    try:
        frame = cast(pd.DataFrame, readers[path.suffix.lower()](path))  # type: ignore[operator]  # two of a kind
    except ImportError as error:
        raise DataError(f"{path}: reading it needs pyarrow: pip install 'hwnas[exchange]'") from error
    except (OSError, ValueError) as error:  # pandas and pyarrow raise their own kinds of these
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}): give a whole file") from error
    missing = [column for column in columns or () if column not in frame]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}: the columns are {', '.join(map(str, frame.columns))}")
    return frame


# ---- rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RowIndex:
    """Where a row stands among those of a table: exact, for any number of genes, a few sorted searches for all rows.

    Genes are cut into runs whose mixed-radix number, joined to the rank of what stands before them, fits 64 bits;
    each run has the sorted keys that occur. The rank behind the last run names the row.
    """

    levels: tuple[tuple[slice, IntArray, int, IntArray], ...]  # genes, their weights, their base, sorted keys
    rows: IntArray  # rank behind the last run -> row
    counts: IntArray  # options of each gene

    @classmethod
    def of(cls, X: IntArray, counts: Sequence[int]) -> RowIndex:
        """The index of different rows whose gene i is below counts[i]."""
        levels = []
        rank, ranks, start = np.zeros(len(X), dtype=np.int64), 1, 0
        while start < len(counts):
            stop, base = start, 1
            while stop < len(counts) and (stop == start or base * counts[stop] * ranks < KEY_LIMIT):
                base *= counts[stop]
                stop += 1
            genes = slice(start, stop)
            weights = np.cumprod([1, *counts[start : stop - 1]], dtype=np.int64)
            keys, rank = np.unique(rank * base + X[:, genes] @ weights, return_inverse=True)
            levels.append((genes, weights, base, keys))
            ranks, start = len(keys), stop
        return cls(tuple(levels), np.argsort(rank), np.asarray(counts))

    def find(self, X: IntArray) -> IntArray:
        """Row of the table that each row of (n, genes) equals, -1 where there is none, (n,)."""
        there = np.all((X >= 0) & (self.counts > X), axis=1)  # an index out of range could spell another row's key
        rank = np.zeros(len(X), dtype=np.int64)
        for genes, weights, base, keys in self.levels:
            key = rank * base + np.where(there[:, None], X[:, genes], 0) @ weights
            rank = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            there = there & (keys[rank] == key)
        return np.where(there, self.rows[rank], -1)


# ---- columns --------------------------------------------------------------------------------------------------------


def _gene(frame: pd.DataFrame, column: str, source: str) -> Gene:
    values = _present(frame, column, source)
    if values.isna().any():
        raise DataError(f"{source}: row {int(values.isna().to_numpy().argmax())}: {column} is empty: fill it")
    options = values.unique().tolist()
    try:
        return Gene(column, tuple(sorted(options)))
    except TypeError as error:
        raise DataError(
            f"{source}: {column} mixes numbers and text: give one kind, or a Gene that orders them"
        ) from error


def _indices(frame: pd.DataFrame, gene: Gene, source: str) -> IntArray:
    """Option index of each row, -1 for what is no option."""
    numbers: Mapping[Value, int] = {option: i for i, option in enumerate(gene.options)}
    mapped = _present(frame, gene.name, source).map(numbers)
    return mapped.fillna(-1).to_numpy().astype(np.int64)


def _costs(frame: pd.DataFrame, metric: Metric, source: str) -> FloatArray:
    values = pd.to_numeric(_present(frame, metric.column, source), errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).argmax())
        shown = frame[metric.column].tolist()[row]
        raise DataError(f"{source}: row {row}: {metric.column} is {shown!r}: give a finite number or drop the row")
    return 1 - metric.scale * values if metric.maximised else metric.scale * values


def _present(frame: pd.DataFrame, column: str, source: str) -> pd.Series[Any]:
    if column not in frame:
        raise DataError(f"{source}: no column {column!r}: the columns are {', '.join(map(str, frame.columns))}")
    return frame[column]


def _shown(genes: Sequence[Gene], row: IntArray) -> str:
    known = [
        gene.options[i] if 0 <= i < len(gene.options) else f"index {i}" for gene, i in zip(genes, row, strict=True)
    ]
    return ", ".join(f"{gene.name}={value}" for gene, value in zip(genes, known, strict=True))
