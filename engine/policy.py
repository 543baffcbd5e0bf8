"""A probability for every option of every gene: what gradient searches move and samplers draw from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, FloatArray, Gene, IntArray

_ROUNDING = 1e-6  # how far from 1 the probabilities of a gene may add up to: what a file of eight digits loses


@dataclass(frozen=True, slots=True)
class CategoricalPolicy:
    """Independent categorical distributions, one a gene.

    `probabilities[i][j]` belongs to option j of gene i; an option that the gene's `allowed` masks has 0 and keeps it.
    A gene that is off in a drawn architecture holds index 0 and had no part in it. Arrays of this class are
    (genes, most options of a gene), zero behind a gene's last option. Raises ValueError.
    """

    genes: tuple[Gene, ...]
    probabilities: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if len(self.probabilities) != len(self.genes):
            raise ValueError(
                f"a policy over {len(self.genes)} genes has {len(self.probabilities)} rows: give one a gene"
            )
        for gene, row in zip(self.genes, self.probabilities, strict=True):
            if len(row) != len(gene.options):
                raise ValueError(f"gene {gene.name!r} has {len(gene.options)} options, its policy {len(row)}")
            if not (min(row) >= 0 and abs(sum(row) - 1) < _ROUNDING):  # so neither is a NaN or infinite
                raise ValueError(
                    f"gene {gene.name!r}: {row} is no distribution: give shares of 0 or more that add to 1"
                )
            allowed = gene.allowed or (True,) * len(row)
            stray = [j for j, (share, keep) in enumerate(zip(row, allowed, strict=True)) if share > 0 and not keep]
            if stray:
                raise ValueError(f"gene {gene.name!r}: option {stray[0]} is masked and has {row[stray[0]]}: make it 0")

    @classmethod
    def uniform(cls, genes: Sequence[Gene]) -> CategoricalPolicy:
        """Every allowed option of a gene alike."""
        return cls.of(genes, _feasible(genes).astype(float))

    @classmethod
    def of(cls, genes: Sequence[Gene], weights: FloatArray) -> CategoricalPolicy:
        """Probabilities in proportion to `weights` (genes, most options), of the allowed options alone.

        A gene whose allowed options all weigh nothing is uniform.
        """
        feasible = _feasible(genes)
        shares = np.where(feasible, weights, 0.0)
        empty = shares.sum(1) == 0
        shares[empty] = feasible[empty]
        shares /= shares.sum(1, keepdims=True)
        rows = (row[: len(gene.options)] for gene, row in zip(genes, shares, strict=True))
        return cls(tuple(genes), tuple(tuple(map(float, row)) for row in rows))

    @property
    def table(self) -> FloatArray:
        """The probabilities as an array (genes, most options)."""
        found = np.zeros(_feasible(self.genes).shape)
        for i, row in enumerate(self.probabilities):
            found[i, : len(row)] = row
        return found

    @property
    def entropy(self) -> FloatArray:
        """Entropy of every gene in nats, (genes,)."""
        table = self.table
        return np.asarray(-(table * np.log(np.where(table > 0, table, 1.0))).sum(1))

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """`n` canonical rows, (n, genes). Rows may repeat."""
        drawn = [rng.choice(len(row), size=n, p=np.array(row) / sum(row)) for row in self.probabilities]
        return arch.canonical(self.genes, np.stack(drawn, axis=1))

    def mode(self) -> Architecture:
        """Every gene at its likeliest option, the first of equal ones; canonical."""
        return arch.to_architecture(arch.canonical(self.genes, self.table.argmax(1)[None])[0])

    def log_probability(self, X: IntArray) -> FloatArray:
        """Logarithm of the chance to draw each row, (n,): over the genes that are on."""
        on = arch.active(self.genes, X)
        with np.errstate(divide="ignore"):  # a row that cannot be drawn has minus infinity
            chances = np.log(self.table[np.arange(len(self.genes)), X])
        return np.asarray(np.where(on, chances, 0.0).sum(1))

    def restrict(self, mask: Sequence[Sequence[bool]]) -> CategoricalPolicy:
        """Only the masked options, in the proportions that they had; option indices keep their meaning."""
        return self.of(arch.restrict(self.genes, mask), self.table)

    def gradient(self, X: IntArray, costs: FloatArray) -> FloatArray:
        """An estimate of d E[cost] / d logits from rows drawn of this policy, (genes, most options).

        The mean of `cost * (one-hot - probabilities)` over the rows, genes that are off left out (REINFORCE, Williams
        1992). Take a baseline off `costs` (n,) first, such as their mean, or give ranks: it varies less.
        """
        table = self.table
        one_hot = np.arange(table.shape[1]) == X[:, :, None]
        scores = np.where(arch.active(self.genes, X)[:, :, None], one_hot - table, 0.0)
        return np.asarray(np.einsum("n,ngo->go", np.asarray(costs, dtype=float), scores) / len(X))

    def descended(
        self, gradient: FloatArray, *, rate: float, natural: bool = False, floor: float = 0.0
    ) -> CategoricalPolicy:
        """One step down the gradient with respect to logits, (genes, most options).

        Plain: the logits move by `-rate * gradient`. Natural: the probabilities do, because the Fisher information of
        a categorical is the Jacobian between the two (Amari 1998; Akimoto et al., ICML 2019, for architectures); then
        `rate` times the spread of costs should stay well below 1. Allowed options keep at least `floor`.
        """
        table, feasible = self.table, _feasible(self.genes)
        if natural:
            moved = np.maximum(table - rate * gradient, 0.0)
        else:
            logits = -rate * np.where(table > 0, gradient, np.inf if rate > 0 else 0.0)
            moved = table * np.exp(logits - logits.max(1, keepdims=True))
        policy = self.of(self.genes, np.where(feasible, moved, 0.0))
        return policy.floored(floor) if floor > 0 else policy

    def floored(self, floor: float) -> CategoricalPolicy:
        """No allowed option below `floor`: what the others have above it pays for the rest, in proportion."""
        table, feasible = self.table, _feasible(self.genes)
        counts = feasible.sum(1)
        if not 0 <= floor * counts.max() <= 1:
            raise ValueError(
                f"a floor of {floor} for {counts.max()} options is no distribution: give at most one of each"
            )
        raised = np.where(feasible, np.maximum(table, floor), 0.0)
        above = np.where(feasible, raised - floor, 0.0)
        total = above.sum(1, keepdims=True)
        room = (1 - floor * counts)[:, None]
        shrunk = floor + above * np.divide(room, total, out=np.zeros_like(total), where=total > 0)
        return self.of(self.genes, np.where(feasible, shrunk, 0.0))

    def to_json(self) -> dict[str, Any]:
        """Options, probabilities and mask by gene name, as plain JSON values."""
        return {
            gene.name: {
                "options": list(gene.options),
                "probabilities": list(row),
                "allowed": [j in gene.choices for j in range(len(gene.options))],
            }
            for gene, row in zip(self.genes, self.probabilities, strict=True)
        }

    @classmethod
    def from_json(cls, genes: Sequence[Gene], data: Mapping[str, Any]) -> CategoricalPolicy:
        """The policy that `to_json` wrote, for genes of the same names and options. Raises ValueError."""
        if set(data) != {gene.name for gene in genes}:
            strange = sorted(set(data) ^ {gene.name for gene in genes})[0]
            raise ValueError(
                f"gene {strange!r} is in the policy or in the space alone: read it with the space it is of"
            )
        rows, masks = [], []
        for gene in genes:
            entry = data[gene.name]
            try:
                options, row, mask = entry["options"], entry["probabilities"], entry["allowed"]
                rows.append(tuple(float(share) for share in row))
                masks.append([bool(allowed) for allowed in mask])
            except (KeyError, TypeError, ValueError) as error:
                cure = "give options, probabilities and allowed, each a list"
                raise ValueError(f"gene {gene.name!r}: no whole policy ({error!r}): {cure}") from error
            if list(gene.options) != list(options):
                raise ValueError(f"gene {gene.name!r} has options {gene.options}, the policy is of {tuple(options)}")
        return cls(arch.restrict(genes, masks), tuple(rows))


def _feasible(genes: Sequence[Gene]) -> arch.BoolArray:
    """Which options each gene allows, (genes, most options)."""
    found = np.zeros((len(genes), max(len(gene.options) for gene in genes)), dtype=bool)
    for i, gene in enumerate(genes):
        found[i, gene.choices] = True
    return found
