"""What was asked and told before, and new rows that were not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import gcd, isfinite, isnan, sqrt
from typing import cast

import numpy as np

from hwnas.engine.architecture import FloatArray, IntArray, size
from hwnas.engine.genome import Genome

# Five matings that leave rows missing have used up most of what a population can breed.
MATINGS = 5
LEAST_SHARE = 0.25  # of new rows among those bred that is reckoned with


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

    narrow: IntArray  # (n, genes), canonical, of the genome's narrow type, which does not reckon
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
        return len(self.narrow)

    @property
    def X(self) -> IntArray:  # noqa: N802  # as everywhere
        """The rows as they are asked, (n, genes)."""
        return self.narrow.astype(np.int64)

    @property
    def keys(self) -> list[bytes]:
        """One hashable key a row."""
        return keys_of(self.narrow)

    def then(self, later: Told) -> Told:
        """These rows and those; of equal ones the later costs. Raises ValueError for other objectives."""
        if later.costs.shape[1] != self.costs.shape[1]:
            raise ValueError(f"{self.costs.shape[1]} objectives were told before, now {later.costs.shape[1]}")
        both = Told(
            np.concatenate([self.narrow, later.narrow]),
            np.concatenate([self.costs, later.costs]),
            np.concatenate([self.violation, later.violation]),
        )
        return both if later.new else both._latest()

    def take(self, rows: IntArray | slice) -> Told:
        """Some of the rows."""
        if isinstance(rows, slice):
            return Told(self.narrow[rows], self.costs[rows], self.violation[rows])
        # as brackets, in a third of the time
        return Told(self.narrow.take(rows, axis=0), self.costs.take(rows, axis=0), self.violation.take(rows))

    def _latest(self) -> Told:
        last = {key: i for i, key in enumerate(self.keys)}
        return self if len(last) == len(self) else self.take(np.array(list(last.values())))
