"""Ways down a lattice of resolutions: counted, drawn alike, and what a walk sees that chooses move by move."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log

import numpy as np

from hwnas.engine.architecture import FloatArray, IntArray

# What a layer does to the resolution; width is halved together with height alone.
MOVES = ((0, 0), (1, 0), (1, 1))  # halvings of height, of width


@dataclass(frozen=True)
class Lattice:
    """Layers, each of which makes a move, and halvings of height and width that are made when all layers are through.

    States are (halvings of height, halvings of width) so far; paths are arrays (n, layers) of indices into MOVES.
    """

    layers: int
    heights: int
    widths: int

    def __post_init__(self) -> None:
        if not 0 <= self.widths <= self.heights <= self.layers:
            raise ValueError(
                f"{self.layers} layers cannot halve height {self.heights} times and width {self.widths} times: a layer "
                "halves height once, and width only together with height"
            )

    @cached_property
    def _ways(self) -> list[list[list[int]]]:
        """Ways from before a layer, in a state, to the end: [layer][height][width], exact."""
        ways = [[[0] * (self.widths + 1) for _ in range(self.heights + 1)] for _ in range(self.layers + 1)]
        ways[self.layers][self.heights][self.widths] = 1
        for layer in reversed(range(self.layers)):
            for h in range(self.heights + 1):
                for w in range(self.widths + 1):
                    ways[layer][h][w] = sum(
                        ways[layer + 1][h + dh][w + dw]
                        for dh, dw in MOVES
                        if h + dh <= self.heights and w + dw <= self.widths
                    )
        return ways

    def count_paths(self) -> int:
        """How many paths there are, exactly."""
        return self._ways[0][0][0]

    def chances(self, *, uniform: bool) -> FloatArray:
        """Chance of each move before a layer in a state, (layers, heights + 1, widths + 1, moves).

        `uniform` draws all paths alike, by how many lead on from each move. Otherwise a walk chooses alike among the
        moves from which there is a way to the end. States from which there is none have only zeros.
        """
        found = np.zeros((self.layers, self.heights + 1, self.widths + 1, len(MOVES)))
        for layer in range(self.layers):
            for h in range(self.heights + 1):
                for w in range(self.widths + 1):
                    weights = [
                        self._ways[layer + 1][h + dh][w + dw] if h + dh <= self.heights and w + dw <= self.widths else 0
                        for dh, dw in MOVES
                    ]
                    if not uniform:
                        weights = [int(weight > 0) for weight in weights]
                    total = sum(weights)
                    if total:
                        found[layer, h, w] = [weight / total for weight in weights]
        return found

    def sample(self, n: int, rng: np.random.Generator, *, uniform: bool = True) -> IntArray:
        """`n` paths, (n, layers): all alike, or as the walk makes them. Paths may repeat."""
        chances = self.chances(uniform=uniform)
        steps = np.array(MOVES)
        paths = np.zeros((n, self.layers), dtype=np.int64)
        state = np.zeros((n, 2), dtype=np.int64)
        for layer in range(self.layers):
            cumulative = chances[layer, state[:, 0], state[:, 1]].cumsum(1)
            # the last sum may fall short of 1 by rounding: scaled, no draw lies beyond it
            drawn = rng.random(n)[:, None] * cumulative[:, -1:]
            paths[:, layer] = (drawn >= cumulative).sum(1)
            state += steps[paths[:, layer]]
        return paths

    def entropy(self, *, uniform: bool) -> float:
        """Entropy of the drawn path in nats: the logarithm of the number of paths where all are alike."""
        if uniform:
            return log(self.count_paths())
        chances = self.chances(uniform=False)
        logs = np.log(chances, out=np.zeros_like(chances), where=chances > 0)
        return -float((self.visits(uniform=False)[:-1, :, :, None] * chances * logs).sum())

    def mean_lowest_layer(self, *, uniform: bool) -> float:
        """The layer (1-based) behind which height is at its lowest, on average."""
        lowest = self.visits(uniform=uniform)[:, self.heights].sum(1)  # share that is there behind layer i
        return float((np.arange(1, self.layers + 1) * np.diff(lowest)).sum())

    def visits(self, *, uniform: bool) -> FloatArray:
        """Share of draws in each state before each layer and behind the last, (layers + 1, heights + 1, widths + 1)."""
        chances = self.chances(uniform=uniform)
        found = np.zeros((self.layers + 1, self.heights + 1, self.widths + 1))
        found[0, 0, 0] = 1
        for layer in range(self.layers):
            for move, (dh, dw) in enumerate(MOVES):
                moved = found[layer] * chances[layer, :, :, move]
                found[layer + 1, dh:, dw:] += moved[: self.heights + 1 - dh, : self.widths + 1 - dw]
        return found
