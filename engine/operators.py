"""What evolution does to gene arrays: sampling, crossover, mutation, ranking, and a memory of what was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import gcd, isfinite, isnan, prod, sqrt
from typing import Any, cast

import moocore
import numpy as np

from hwnas.engine.architecture import BoolArray, FloatArray, Gene, IntArray, size

# Five matings that leave rows missing have used up most of what a population can breed.
MATINGS = 5
LEAST_SHARE = 0.25  # of new rows among those bred that is reckoned with

# Genes expected to mutate in a row. One gives less hypervolume after 2,000 candidates: 0.846, not 0.848, on
# OFA-MobileNetV3 (8 seeds, standard deviation 0.001), 0.782, not 0.786, on 40 additive genes (20 seeds, 0.003).
CHANGES = 0.5


@dataclass(frozen=True, slots=True)
class Level:
    """Genes that need an option of a gene of the level before. Many need the same: a table row is one such need."""

    gated: IntArray  # genes
    needs: IntArray  # of each, its row in the table
    gates: IntArray  # (rows,) the gene that a row asks
    offsets: IntArray  # (rows, 1) where each row begins in the flat table
    table: BoolArray  # (rows, widest) option index of the gate -> on


@dataclass(frozen=True, slots=True)
class Genome:
    """The genes as tables, so that every operator is a few gathers whatever the number of rows."""

    genes: tuple[Gene, ...]
    choices: IntArray  # (genes, widest) allowed option indices, padded with the first
    counts: IntArray  # (genes,) allowed options of each
    lengths: IntArray  # (genes,) options of each
    places: IntArray  # (genes, widest) option index -> its place among the choices, 0 where barred
    allowed: BoolArray  # (genes, widest) by option index
    levels: tuple[Level, ...]
    groups: IntArray  # (genes,) equal for genes of one place: s0.b1.kernel and s0.b1.expansion
    free: IntArray  # genes that have a choice
    whole: bool  # no option is barred
    dtype: np.dtype[np.unsignedinteger[Any]]  # the smallest that holds every option index

    @classmethod
    def of(cls, genes: Sequence[Gene]) -> Genome:
        """The tables of these genes."""
        if not genes:
            raise ValueError("a space without genes holds one network: there is nothing to search")
        widest = max(len(gene.options) for gene in genes)
        choices, places = np.zeros((2, len(genes), widest), dtype=np.int64)
        allowed = np.zeros((len(genes), widest), dtype=bool)
        for i, gene in enumerate(genes):
            choices[i] = np.pad(gene.choices, (0, widest - len(gene.choices)), constant_values=gene.choices[0])
            places[i, gene.choices] = np.arange(len(gene.choices))
            allowed[i, gene.choices] = True
        counts = np.array([len(gene.choices) for gene in genes])
        lengths = np.array([len(gene.options) for gene in genes])
        levels, groups, dtype = _levels(genes, widest), _groups(genes), np.min_scalar_type(widest)
        free = np.flatnonzero(counts > 1)
        whole = bool((counts == lengths).all())
        return cls(tuple(genes), choices, counts, lengths, places, allowed, levels, groups, free, whole, dtype)

    def active(self, X: IntArray) -> BoolArray:
        """Which genes of each row are on, (n, genes): `architecture.active` with a few gathers a level of gating."""
        return np.ascontiguousarray(self.active_columns(X.T).T)

    def active_columns(self, columns: IntArray) -> BoolArray:
        """`active` of architectures in columns, (genes, n), where each gene's options lie side by side."""
        on = np.ones(columns.shape, dtype=bool)
        for number, level in enumerate(self.levels):
            opened = level.table.take(columns.take(level.gates, axis=0) + level.offsets)
            if number:  # gates of the first level are always on
                opened &= on.take(level.gates, axis=0)
            on[level.gated] = opened.take(level.needs, axis=0)
        return on

    def canonical(self, X: IntArray) -> IntArray:
        """`X` with genes that are off at index 0."""
        return X * self.active(X) if self.levels else X

    def draw(self, n: int, rng: np.random.Generator) -> IntArray:
        """`n` rows with each gene uniform over its choices, not yet canonical."""
        # the upper half of a product with 32 random bits: 38 us, not 96 as by `integers`, for 100 rows of 45 genes, and
        # no choice is likelier than another by more than 2^-32
        bits = rng.integers(0, 2**32, size=(n, len(self.counts)), dtype=np.uint32)
        places: IntArray = (bits * self.counts.astype(np.uint64) >> np.uint64(32)).astype(np.int64)
        if self.whole:
            return places
        return np.asarray(self.choices.ravel().take(places + np.arange(len(self.counts)) * self.choices.shape[1]))

    def spread(self, n: int, rng: np.random.Generator) -> IntArray:
        """`n` rows from the smallest to the largest networks, not yet canonical.

        Independent genes average out: of 40, nearly all rows cost about the same. Here a row first draws a share u,
        then the place of each option from Binomial(choices - 1, u). With uniform u every gene is still uniform over
        its choices (a beta-binomial of 1, 1), but rows spread over the whole range, since options are listed from
        small to large. As the start of NSGA-II it reaches after 500 candidates the hypervolume that an independent
        start has not reached after 2,000 (benchmarks/search_loop.py: 0.831 and 0.825 on OFA-MobileNetV3).
        """
        places = rng.binomial(self.counts - 1, rng.random((n, 1)))
        return self.choices[np.arange(len(self.counts)), places]

    def check(self, X: IntArray) -> IntArray:
        """The rows in canonical form. Raises ValueError where one is not of this space."""
        X = np.array(X, dtype=np.int64, ndmin=2)
        if X.ndim != 2 or X.shape[1] != len(self.genes):
            raise ValueError(f"a population of this space has shape (n, {len(self.genes)}), got {X.shape}")
        outside = X.view(np.uint64) >= self.lengths.view(np.uint64)  # below 0 is far above
        if outside.any():
            row, i = np.argwhere(outside)[0]
            gene = self.genes[i]
            raise ValueError(f"row {row}: gene {gene.name!r} has {len(gene.options)} options, got index {X[row, i]}")
        restricted = np.flatnonzero(self.counts < self.lengths)
        if len(restricted):
            barred = self.active(X)[:, restricted] & ~self.allowed[restricted, X[:, restricted]]
            if barred.any():
                row, k = np.argwhere(barred)[0]
                i = restricted[k]
                choices = self.genes[i].choices.tolist()
                raise ValueError(
                    f"row {row}: gene {self.genes[i].name!r} is restricted to options {choices}, got {X[row, i]}"
                )
        return self.canonical(X)

    def decode(self, numbers: Sequence[int]) -> IntArray:
        """The architectures with these numbers, 0 to `size(genes) - 1`: every architecture has exactly one."""
        left = np.array(numbers, dtype=np.int64 if size(self.genes) < 2**62 else object)
        X = np.zeros((len(left), len(self.genes)), dtype=np.int64)
        position = {gene.name: i for i, gene in enumerate(self.genes)}
        ranges = _ranges(self.genes)

        def fill(gene: Gene, number: IntArray, rows: IntArray) -> None:
            for option, start, stop, children in ranges[gene.name]:
                inside = (number >= start) & (number < stop)
                if not inside.any():
                    continue
                X[rows[inside], position[gene.name]] = option
                rest = number[inside] - start
                for child, count in children:
                    fill(child, rest % count, rows[inside])
                    rest = rest // count

        everyone = np.arange(len(left))
        for gene in self.genes:
            if gene.needs is None:
                count = ranges[gene.name][-1][2]
                fill(gene, left % count, everyone)
                left = left // count
        return X


def _levels(genes: Sequence[Gene], widest: int) -> tuple[Level, ...]:
    position = {gene.name: i for i, gene in enumerate(genes)}
    depth: list[int] = []
    for gene in genes:
        depth.append(0 if gene.needs is None else 1 + depth[position[gene.needs[0]]])
    levels = []
    for level in range(1, max(depth) + 1):
        gated = [i for i in range(len(genes)) if depth[i] == level]
        needs = [genes[i].needs or ("", frozenset()) for i in gated]
        different = list(dict.fromkeys(needs))
        table = np.zeros((len(different), widest), dtype=bool)
        for row, (_, options) in zip(table, different, strict=True):
            row[list(options)] = True
        gates = np.array([position[gate] for gate, _ in different])
        offsets = np.arange(len(different))[:, None] * widest
        levels.append(
            Level(np.array(gated), np.array([different.index(need) for need in needs]), gates, offsets, table)
        )
    return tuple(levels)


def _groups(genes: Sequence[Gene]) -> IntArray:
    """What comes before the last dot of a gene's name is its place; a name without a dot is a place of its own."""
    places = [gene.name.rpartition(".")[0] or f".{gene.name}" for gene in genes]
    number = {place: i for i, place in enumerate(dict.fromkeys(places))}
    return np.array([number[place] for place in places])


def _ranges(genes: Sequence[Gene]) -> dict[str, list[tuple[int, int, int, list[tuple[Gene, int]]]]]:
    """For each choice of a gene that is on: its range among the ways to choose, what it switches on, with its ways."""
    ranges: dict[str, list[tuple[int, int, int, list[tuple[Gene, int]]]]] = {}
    for gene in reversed(genes):  # a gene after the one it needs
        own, start = [], 0
        for option in gene.choices.tolist():
            on = [child for child in genes if child.needs and child.needs[0] == gene.name and option in child.needs[1]]
            children = [(child, ranges[child.name][-1][2]) for child in on]
            stop = start + prod(count for _, count in children)
            own.append((option, start, stop, children))
            start = stop
        ranges[gene.name] = own
    return ranges


# ---- memory ---------------------------------------------------------------------------------------------------------


def keys_of(narrow: IntArray) -> list[bytes]:
    """One hashable key a row, its bytes."""
    return cast(list[bytes], narrow.view(np.dtype((np.void, narrow[:1].nbytes or 1))).ravel().tolist())


class Asked:
    """Every architecture that was ever asked, and fresh ones that were not.

    Rows are remembered as their bytes in a set, which compares them in full: no two architectures are ever taken
    for one. About 130 bytes a row of 40 genes.
    """

    def __init__(
        self, genome: Genome, *, batch: int, rng: np.random.Generator, initial: IntArray | None = None
    ) -> None:
        if batch < 1:
            raise ValueError(f"a population of {batch} asks for nothing: give at least 1")
        self.batch = batch
        self._genome = genome
        self._waiting = genome.check(np.zeros((0, len(genome.genes)), np.int64) if initial is None else initial)
        self._rng = rng
        self._rows: set[bytes] = set()
        self._size = size(genome.genes)
        self._share = 1.0  # of the rows bred last that were new
        self._bred = self._narrow([])  # last, until they are told
        self._at, self._step = 0, 0  # of the walk over the space; a step of 0 says that it has not begun

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def keys(self, X: IntArray) -> list[bytes]:
        """One hashable key a canonical row."""
        return keys_of(np.ascontiguousarray(X, dtype=self._genome.dtype))

    def just_bred(self, X: IntArray) -> IntArray | None:
        """Narrow rows where these are what `bred` gave out last and nobody has told them yet; else None."""
        bred, self._bred = self._bred, self._narrow([])
        return bred if X.dtype == np.int64 and X.shape == bred.shape and (bred == X).all() else None

    def known(self, X: IntArray) -> IntArray | None:
        """Narrow rows where every row was asked or told before, and is canonical therefore; else None."""
        if X.dtype != np.int64 or X.ndim != 2 or X.shape[1] != len(self._genome.genes):
            return None
        narrow = X.astype(self._genome.dtype)
        if (narrow != X).any():  # its key would be that of another row
            return None
        return narrow if self._rows.issuperset(self.keys(narrow)) else None

    def add(self, keys: Iterable[bytes]) -> None:
        """Remember rows that came from elsewhere, by their keys."""
        self._rows.update(keys)

    def new(self, X: IntArray, *, at_most: int) -> IntArray:
        """The first `at_most` canonical rows that nobody asked before, from now on remembered."""
        return self._of(self._unseen(self.keys(X))[:at_most])

    def _unseen(self, keys: list[bytes]) -> list[bytes]:
        """Those that nobody asked before, each once."""
        rows = self._rows
        return [key for key in dict.fromkeys(keys) if key not in rows]

    def _narrow(self, keys: list[bytes]) -> IntArray:
        """The rows with these keys, of the genome's narrow type and read-only."""
        return np.frombuffer(b"".join(keys), dtype=self._genome.dtype).reshape(len(keys), len(self._genome.genes))

    def _of(self, keys: list[bytes]) -> IntArray:
        """The rows with these keys, from now on remembered."""
        self._rows.update(keys)
        return self._narrow(keys).astype(np.int64)

    @property
    def exhausted(self) -> bool:
        """Whether every architecture of the space was asked."""
        return len(self._rows) == self._size

    def initial(self) -> IntArray:
        """The next rows, a batch at most, of those that the search was told to begin with."""
        if len(self._waiting) == 0:
            return self._waiting
        rows = self.new(self._waiting, at_most=self.batch)
        self._waiting = self._waiting[[key not in self._rows for key in self.keys(self._waiting)]]
        return rows

    def bred(self, n: int, candidates: Callable[[int], IntArray]) -> IntArray:
        """`n` new rows out of `candidates`, asked for some canonical rows; fresh ones where these are not enough.

        More are bred than are missing, as the share of repeats last time says, since a second mating costs more than
        rows.
        """
        keys: list[bytes] = []
        for _ in range(MATINGS):
            missing = n - len(keys)
            if missing == 0:
                break
            bred = self.keys(candidates(self._enough(missing)))
            unseen = self._unseen(bred)
            if missing >= self.batch / 4:  # of fewer the share says little
                self._share = len(unseen) / len(bred)
            self._rows.update(unseen[:missing])
            keys += unseen[:missing]
        if len(keys) < n:
            keys += self.keys(self.fresh(n - len(keys)))
        self._bred = self._narrow(keys)
        return self._bred.astype(np.int64)

    def _enough(self, missing: int) -> int:
        """Rows of which `missing` will be new in nineteen of twenty matings, if as many are new as last time."""
        share = max(self._share, LEAST_SHARE)
        expected = missing / share
        # of n rows n * share are new, with the standard deviation sqrt(n * share * (1 - share))
        return int(expected + 2 * sqrt(expected * (1 - share) / share)) + missing // 50 + 1

    def fresh(self, n: int) -> IntArray:
        """`n` random rows that nobody asked before; fewer, or none, when the space is used up.

        Each gene is uniform over its choices. Where three rounds of that leave rows missing, nearly all that is
        likely was asked; then the space is walked through once, in an order that strides over it.
        """
        found = [np.zeros((0, len(self._genome.genes)), dtype=np.int64)]
        missing = n
        for _ in range(3):
            if missing == 0 or self.exhausted:
                break
            found.append(self.new(self._genome.canonical(self._genome.draw(missing, self._rng)), at_most=missing))
            missing -= len(found[-1])
        while missing and not self.exhausted and (numbers := self._stride(max(64, missing))):
            found.append(self.new(self._genome.decode(numbers), at_most=missing))
            missing -= len(found[-1])
        return np.concatenate(found)

    def _stride(self, n: int) -> list[int]:
        """The next numbers of a walk that meets every architecture once and then starts again."""
        if self._step == 0:
            # a stride prime to the size visits everything; 0.618 of the size spreads neighbours (golden section)
            self._step = max(1, self._size * 618 // 1000)
            while gcd(self._step, self._size) != 1:
                self._step += 1
            self._at = int.from_bytes(self._rng.bytes(16 + self._size.bit_length() // 8)) % self._size
        numbers = [(self._at + k * self._step) % self._size for k in range(min(n, self._size))]
        self._at = (self._at + len(numbers) * self._step) % self._size
        return numbers


@dataclass(frozen=True, slots=True)
class Told:
    """Rows with what they cost, each architecture once."""

    X: IntArray  # (n, genes), canonical, of the genome's narrow type
    costs: FloatArray  # (n, objectives)
    violation: FloatArray  # (n,)
    new: bool = False  # no row was told before

    @classmethod
    def of(cls, genome: Genome, asked: Asked, X: IntArray, costs: FloatArray, violation: FloatArray) -> Told:
        """The rows as an algorithm is told them, from now on remembered by `asked`.

        Raises ValueError for shapes that do not fit, and for costs of a feasible row that are not finite.
        """
        X = np.asarray(X)
        bred = asked.just_bred(X)
        narrow = asked.known(X) if bred is None else bred
        if narrow is None:
            narrow = genome.check(X).astype(genome.dtype)
            asked.add(asked.keys(narrow))
        costs, violation = np.asarray(costs, dtype=np.float64), np.asarray(violation, dtype=np.float64)
        if costs.ndim != 2 or costs.shape[0] != len(narrow) or violation.shape != (len(narrow),):
            raise ValueError(
                f"{len(narrow)} rows need costs (rows, objectives) and violation (rows,), "
                f"got {costs.shape} and {violation.shape}"
            )
        # one sum instead of two calls, nearly always
        if not (isfinite(costs.sum()) or np.isfinite(costs[violation <= 0]).all()) or isnan(violation.sum()):
            raise ValueError("a feasible row has costs that are not finite: tell a failed row with violation inf")
        told = cls(narrow, costs, violation, new=bred is not None)
        return told if told.new else told._latest()

    def __len__(self) -> int:
        return len(self.X)

    @property
    def keys(self) -> list[bytes]:
        """One hashable key a row."""
        return keys_of(self.X)

    def then(self, later: Told) -> Told:
        """These rows and those; of equal ones the later costs. Raises ValueError for other objectives."""
        if later.costs.shape[1] != self.costs.shape[1]:
            raise ValueError(f"{self.costs.shape[1]} objectives were told before, now {later.costs.shape[1]}")
        both = Told(
            np.concatenate([self.X, later.X]),
            np.concatenate([self.costs, later.costs]),
            np.concatenate([self.violation, later.violation]),
        )
        return both if later.new else both._latest()

    def take(self, rows: IntArray | slice) -> Told:
        """Some of the rows."""
        if isinstance(rows, slice):
            return Told(self.X[rows], self.costs[rows], self.violation[rows])
        # as brackets, in a third of the time
        return Told(self.X.take(rows, axis=0), self.costs.take(rows, axis=0), self.violation.take(rows))

    def _latest(self) -> Told:
        last = {key: i for i, key in enumerate(self.keys)}
        return self if len(last) == len(self) else self.take(np.array(list(last.values())))


# ---- variation ------------------------------------------------------------------------------------------------------


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
    hits = (rng.random(rng.poisson(CHANGES * n * places / max(1, of_those_on))) * places).astype(np.int64)
    return hits if everywhere else free.take(hits // n) * n + hits % n


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


# ---- selection ------------------------------------------------------------------------------------------------------


def constrained_rank(costs: FloatArray, violation: FloatArray) -> IntArray:
    """Rank of each row, 0 the best, under constraint domination (Deb et al., 2002), (n,).

    Feasible rows are ranked by Pareto front; behind them come the others, a rank for each violation.
    """
    # moocore.pareto_rank takes 27 us for 200 x 2 and 35 us for 200 x 3, pymoo's compiled sorting 270 and 207 us
    # (efficient) or 553 and 578 us (fast)
    feasible = violation <= 0
    if feasible.all():
        return np.asarray(moocore.pareto_rank(costs), dtype=np.int64)
    rank = np.zeros(len(costs), dtype=np.int64)
    if feasible.any():
        rank[feasible] = moocore.pareto_rank(np.ascontiguousarray(costs[feasible]))
    _, order = np.unique(violation[~feasible], return_inverse=True)
    rank[~feasible] = order + (rank[feasible].max() + 1 if feasible.any() else 0)
    return rank


def crowding(costs: FloatArray, rank: IntArray) -> FloatArray:
    """Crowding distance of each row within its rank (Deb et al., 2002), (n,); infinite at the ends of an objective.

    Ranks are 0 to the largest, none left out.
    """
    n, objectives = costs.shape
    if n == 0:
        return np.zeros(0)
    if objectives == 2:
        return _crowding_of_two(costs, rank)
    # all ranks and objectives in one sort: pymoo's function is called once a front
    order = np.lexsort((costs.T, np.repeat(rank[None], objectives, axis=0)))
    value = np.take_along_axis(costs.T, order, axis=1)
    first, last, size = _fronts(rank)
    span = np.repeat(value[:, last] - value[:, first], size, axis=1)
    distance = np.full((objectives, n), np.inf)
    distance[:, 1:-1] = (value[:, 2:] - value[:, :-2]) / np.where(span[:, 1:-1] > 0, span[:, 1:-1], 1)
    distance[:, first] = distance[:, last] = np.inf
    found = np.empty((objectives, n))
    np.put_along_axis(found, order, distance, axis=1)
    return np.asarray(found.sum(0))


def _crowding_of_two(costs: FloatArray, rank: IntArray) -> FloatArray:
    """On a front of two objectives one falls where the other rises: the sum of both, scaled, is the way along it."""
    order = np.lexsort((costs[:, 0], rank))
    value = costs.take(order, axis=0)
    first, last, size = _fronts(rank)
    span = value.take(last, axis=0) - value.take(first, axis=0)
    span[span == 0] = np.inf
    way = (value / np.repeat(span, size, axis=0)).sum(1)
    distance = np.empty(len(order))
    distance[1:-1] = way[2:] - way[:-2]
    distance[first] = distance[last] = np.inf
    found = np.empty(len(order))
    found[order] = distance
    return found


def _fronts(rank: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """The first and the last place of each rank among the sorted ones, and how many have it."""
    size = np.bincount(rank)
    last = size.cumsum() - 1
    return last - size + 1, last, size


def tournament(entrants: int, n: int, rng: np.random.Generator) -> IntArray:
    """Indices of `n` winners of binary tournaments among `entrants` sorted from the best to the worst, (n,).

    Rivals are taken from whole permutations, so that everybody fights equally often.
    """
    rounds = -(-2 * n // entrants)
    drawn = rng.random((rounds, entrants)).argsort(axis=1).ravel()
    return np.minimum(drawn[:n], drawn[n : 2 * n])
