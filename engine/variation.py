"""Children: crossover and mutation of gene arrays."""

from __future__ import annotations

import numpy as np

from hwnas.engine.architecture import BoolArray, FloatArray, IntArray
from hwnas.engine.genome import Genome

# Genes expected to mutate in a row. One gives less hypervolume after 2,000 candidates: 0.846, not 0.848, on
# OFA-MobileNetV3 (8 seeds, standard deviation 0.001), 0.782, not 0.786, on 40 additive genes (20 seeds, 0.003).
CHANGES = 0.5


def crossover(genome: Genome, A: IntArray, B: IntArray, rng: np.random.Generator, *, by_place: bool = True) -> IntArray:
    """Two canonical children a pair of canonical parents, (2n, genes): uniform crossover (Syswerda, 1989).

    A gene that only one parent has on comes from that one, since the other's index 0 says nothing. A gene that is
    on in a child and in neither parent is drawn.

    `by_place` swaps the genes of a place of the network together. Where they act together that pays: 0.789, not 0.786,
    of the hypervolume after 2,000 candidates on blocks of two genes (10 seeds, p = 0.002); 0.847 both on
    OFA-MobileNetV3 (benchmarks/search_loop.py).
    """
    columns = _columns(genome, np.concatenate([A, B]))
    on = genome.active_columns(columns)
    children = _crossed(genome, columns, on, rng, by_place=by_place)
    return _rows(_completed(genome, children, _nowhere(on), rng)).astype(np.int64)


def mutate(
    genome: Genome,
    X: IntArray,
    rng: np.random.Generator,
    *,
    changes: float = 1.0,
    weights: FloatArray | None = None,
) -> IntArray:
    """Canonical rows with each gene that is on and has a choice moved to another of its choices.

    `changes` are expected a row: each such gene moves with a probability in proportion to its weight in `weights`
    (genes,), all equal by default; probabilities end at 1. A gene that a change switches on is drawn. Weights by how
    much a gene moves the costs gained nothing on three problems (0.847 both on OFA-MobileNetV3, 10 seeds).
    Raises ValueError for weights that are not one finite number a gene, 0 or more.
    """
    if weights is not None and (
        np.shape(weights) != genome.counts.shape or not np.isfinite(weights).all() or np.min(weights) < 0
    ):
        raise ValueError(f"weights of genes are {len(genome.counts)} finite numbers, 0 or more, got {weights!r}")
    columns = _columns(genome, X)
    nowhere = ~genome.active_columns(columns)
    mutants = _mutated(genome, columns, rng, changes=changes, weights=weights)
    return _rows(_completed(genome, mutants, nowhere, rng)).astype(np.int64)


def offspring(genome: Genome, parents: IntArray, rng: np.random.Generator) -> IntArray:
    """Canonical children of canonical parents, crossed over and then mutated, (n, genes) of the genome's narrow type.

    A parent of the first half of the rows meets the one in the same place of the second half. Every gene that has a
    choice mutates with the same probability, half a gene a row on average. What mutation switches on comes from a
    parent that has it on.
    """
    columns = _columns(genome, parents)
    on = genome.active_columns(columns)
    children = _crossed(genome, columns, on, rng, by_place=True)
    mutants = _moved(genome, children, _hits(genome, on, rng), rng)
    return _rows(_completed(genome, mutants, _nowhere(on), rng))


def _hits(genome: Genome, on: BoolArray, rng: np.random.Generator) -> IntArray:
    """Where to mutate, as indices of the flat array: any gene that has a choice, half a gene a row among those on.

    A Poisson number of places drawn anew each time is a trial a place, and takes a random number a hit and not a place.
    """
    n, free = on.shape[1], genome.free
    everywhere = len(free) == len(on)
    places = n * len(free)
    of_those_on = np.count_nonzero(on if everywhere else on.take(free, axis=0))
    hits: IntArray = (rng.random(rng.poisson(CHANGES * n * places / max(1, of_those_on))) * places).astype(np.int64)
    if not everywhere:
        hits = free.take(hits // n) * n + hits % n
    return hits


# Inside, architectures are columns of bytes: a gene's options lie side by side, and a population of 100 with all that
# is made of it stays in the nearest cache.


def _columns(genome: Genome, X: IntArray) -> IntArray:
    columns: IntArray = np.ascontiguousarray(X.astype(genome.dtype, copy=False).T)
    return columns


def _rows(columns: IntArray) -> IntArray:
    return np.ascontiguousarray(columns.T)


def _crossed(genome: Genome, parents: IntArray, on: BoolArray, rng: np.random.Generator, *, by_place: bool) -> IntArray:
    """Two children a pair, not canonical; the first half of the columns meets the second."""
    half = parents.shape[1] // 2
    places = int(genome.groups[-1]) + 1 if by_place else len(genome.groups)
    swap = rng.random((places, half), dtype=np.float32) < 0.5  # `integers` takes twice the time
    swap = swap.take(genome.groups, axis=0) if by_place else swap
    A, B, on_a, on_b = parents[:, :half], parents[:, half:], on[:, :half], on[:, half:]
    # a product with 0 or 1 takes a tenth of the time of a choice
    children, differ = np.empty_like(parents), A ^ B
    np.bitwise_xor(A, differ * (on_b & (swap | ~on_a)), out=children[:, :half])
    np.bitwise_xor(A, differ * (on_b & ~(swap & on_a)), out=children[:, half:])
    return children


def _nowhere(on: BoolArray) -> BoolArray:
    """Which genes of a pair's two children neither of its parents has on, who therefore say nothing of them."""
    half = on.shape[1] // 2
    neither = ~(on[:, :half] | on[:, half:])
    return np.concatenate([neither, neither], axis=1)


def _mutated(
    genome: Genome, columns: IntArray, rng: np.random.Generator, *, changes: float, weights: FloatArray | None = None
) -> IntArray:
    """`columns`, changed in place where their genes are on; not canonical."""
    free = (genome.counts > 1)[:, None] & genome.active_columns(columns)
    weight = free if weights is None else free * weights[:, None]
    total = weight.sum(0)
    chance = (changes / np.where(total > 0, total, 1)).astype(np.float32)
    moved = rng.random(columns.shape, dtype=np.float32) < (chance if weights is None else chance * weights[:, None])
    # of the flat array: nonzero of the 2-D one takes twice the time of all else here
    return _moved(genome, columns, np.flatnonzero(moved & free), rng)


def _moved(genome: Genome, columns: IntArray, at: IntArray, rng: np.random.Generator) -> IntArray:
    """`columns`, changed in place to another choice at these indices of the flat array."""
    genes, flat = at // columns.shape[1], columns.reshape(-1)
    counts = genome.counts.take(genes)
    # `integers` takes three times as long for bounds that differ
    other = (rng.random(len(at)) * (counts - 1)).astype(np.int64) + 1
    if genome.whole:
        flat[at] = (flat.take(at) + other) % counts
    else:
        flat[at] = genome.choices[genes, (genome.places[genes, flat.take(at)] + other) % counts]
    return columns


def _completed(genome: Genome, columns: IntArray, nowhere: BoolArray, rng: np.random.Generator) -> IntArray:
    """`columns` in canonical form, with a draw for what is on and `nowhere` says holds nothing."""
    for _ in genome.levels:  # what is drawn may switch on genes of the next level
        on = genome.active_columns(columns)
        at = np.flatnonzero(on & nowhere)
        if len(at) == 0:
            break
        genes = at // columns.shape[1]
        drawn = (rng.random(len(at)) * genome.counts.take(genes)).astype(np.int64)
        columns.reshape(-1)[at] = drawn if genome.whole else genome.choices[genes, drawn]
        nowhere.reshape(-1)[at] = False
    if genome.levels:
        columns *= on
    return columns
