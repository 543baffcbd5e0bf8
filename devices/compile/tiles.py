"""How much of an output a loop nest keeps in registers, from the vectors of the target and the extents alone."""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.devices.compile.target import has_scalable_vectors, vector_lanes, vector_registers

# What a band of a padded input may take of the first-level data cache, 32 KiB on the smallest cores in mind.
_L1_SHARE_BYTES = 24 * 1024


@dataclass(frozen=True, slots=True)
class Machine:
    """What a schedule needs to know of a CPU."""

    lanes: int  # float32 numbers in a vector
    registers: int  # vector registers
    scalable: bool = False  # whether TVM cuts vectors by a length that the board decides

    @classmethod
    def of(cls, target: str) -> Machine:
        """The machine of a target's JSON text."""
        return cls(vector_lanes(target), vector_registers(target), has_scalable_vectors(target))

    def padded(self, channels: int) -> int:
        """`channels` rounded up to whole vectors."""
        return -(-channels // self.lanes) * self.lanes

    def columns(self, height: int, width: int, outputs: int) -> int:
        """Columns, a divisor of `outputs`, of the accumulators of a product whose rows are a plane's points.

        One register is a row's broadcast number and one a column's weights; every step of the reduction costs
        rows x vectors multiply-adds and rows + vectors loads, and a core does about two of each a cycle, after
        a latency that eight accumulators hide.
        """

        def merit(vectors: int) -> tuple[float, int]:
            work = self.points(height, width, vectors * self.lanes) * vectors
            rows = work // vectors
            return min(1.0, work / (rows + vectors)) * min(1.0, work / 8), work

        return max(divisors(outputs // self.lanes, self.registers // 2), key=merit) * self.lanes

    def patch(self, height: int, width: int, columns: int) -> tuple[int, int]:
        """(rows, points a row) of a plane that fit in registers beside `columns`: part of a row or whole rows."""
        vectors = columns // self.lanes
        limit = max(1, (self.registers - 2 - vectors) // vectors)
        if width > limit:
            return 1, divisors(width, limit)[-1]
        return divisors(height, limit // width)[-1], width

    def points(self, height: int, width: int, columns: int) -> int:
        """How many points a patch holds."""
        rows, along = self.patch(height, width, columns)
        return rows * along

    def window_patch(self, height: int, width: int, *, kernel: int, stride: int) -> tuple[int, int]:
        """(rows, points a row) of a depthwise convolution's output whose sums and inputs fit in registers.

        The compiler loads every input of a row of the window once: beside the sums lie as many inputs.
        """
        rows_of_points = [(1, d) for d in divisors(width, width)] + [(d, width) for d in divisors(height, height)]

        def held(rows: int, along: int) -> int:
            return rows * along + rows * ((along - 1) * stride + kernel) + 1

        fitting = [(r, a) for r, a in rows_of_points if held(r, a) <= self.registers]
        return max(fitting, key=lambda patch: patch[0] * patch[1], default=(1, 1))

    def plane_tile(self, height: int, *, row_bytes: int, stride: int, kernel: int) -> int:
        """Rows of output, a divisor of `height`, whose padded input stays in the first-level cache."""
        fitting = [t for t in divisors(height, height) if ((t - 1) * stride + kernel) * row_bytes <= _L1_SHARE_BYTES]
        return fitting[-1] if fitting else 1


def divisors(n: int, limit: int) -> list[int]:
    """The divisors of n up to `limit`, ascending; never empty."""
    return [d for d in range(1, max(1, min(n, limit)) + 1) if n % d == 0]
