"""A new device from about ten whole networks measured on it, and the tables of other devices in the same database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from sqlalchemy import select

from hwnas.latency import schema
from hwnas.latency.block import Block
from hwnas.latency.predictors import FloatArray, LatencyPredictor, MeasuredNetwork, Miss, Predictions
from hwnas.latency.predictors import kernels as kernels_file
from hwnas.latency.predictors._features import network_costs
from hwnas.latency.predictors._shared import SharedResidual
from hwnas.latency.predictors._transfer import IntArray, Transfer
from hwnas.latency.table import LatencyTable

# Before anything is measured on it, a device is as fast as the others, give or take this.
_STD_UNSEEN = 1.0
_FEWEST = 3


class TransferredNetworks:
    """Whole-network latencies on a device, from what the same networks take on `references`."""

    def __init__(
        self,
        references: Sequence[LatencyPredictor],
        *,
        measured: Sequence[Mapping[tuple[Block, ...], float]] = (),
        device: str = "the device",
    ) -> None:
        """`references` are fitted predictors of other devices, or of this one's own blocks. Raises LookupError.

        `measured` are whole networks that the references ran, in ms, a mapping a reference.
        """
        if not references:
            raise LookupError(
                f"no table of another device to carry latencies to {device!r} from: build one in the same database, "
                f"or run `hwnas table build --device {device}`"
            )
        self._references = tuple(references)
        self._measured = tuple(measured) or tuple({} for _ in references)
        self._shared: SharedResidual | None = None
        if known := self._measured_twice():
            self._shared = SharedResidual.of(self._predicted_ms(known), self._measured_ms(known))
        self._fitted: Transfer | None = None
        self._scale = 1.0

    def probes(self, networks: Sequence[Sequence[Block]], n: int = 10) -> IntArray:
        """Which of `networks` to measure on the new device, (n,) indices: those the references find most different."""
        return Transfer(self._reference_ms(networks), network_costs(networks)).probes(n)

    def fit(self, networks: Sequence[MeasuredNetwork]) -> None:
        """Learn from whole networks measured on the device in ms, 3 or more; fewer give a scale.

        Raises LookupError for a block that a reference can say nothing of.
        """
        if not networks:
            return
        blocks = [found for found, _ in networks]
        measured_ms = np.array([latency_ms for _, latency_ms in networks], dtype=np.float64)
        references_ms = self._reference_ms(blocks)
        self._scale = float(np.exp(np.mean(np.log(measured_ms / _together(references_ms)))))
        self._fitted = None
        if len(networks) >= _FEWEST:
            costs = network_costs(blocks)
            self._fitted = Transfer(references_ms, costs).fit(references_ms, costs, measured_ms)

    def predict(self, networks: Sequence[Sequence[Block]]) -> Predictions:
        """Latencies of all `networks`; missing are the blocks that no reference has measured."""
        if not networks:
            return Predictions(np.empty(0), np.empty(0), ())
        each = [reference.predict(networks) for reference in self._references]
        references_ms = self._with_shared(np.stack([found.mean_ms for found in each], axis=1), networks)
        missing = tuple(
            tuple(block for block in dict.fromkeys(blocks) if all(block in found.missing[i] for found in each))
            for i, blocks in enumerate(networks)
        )
        if self._fitted is None:
            mean_ms = self._scale * _together(references_ms)
            return Predictions(mean_ms, mean_ms * _STD_UNSEEN, missing)
        mean_ms, std_ms = self._fitted.predict(references_ms, network_costs(networks))
        # the references' own doubt about blocks that they estimate is not in the probes' errors
        doubt = np.stack([found.std_ms / found.mean_ms for found in each], axis=1).min(1)
        estimated = np.array([bool(found) for found in missing])
        return Predictions(mean_ms, np.hypot(std_ms, np.where(estimated, doubt * mean_ms, 0.0)), missing)

    def _measured_twice(self) -> list[tuple[Block, ...]]:
        """Networks that two references or more ran and all can predict."""
        times = Counter(network for found in self._measured for network in found)
        return [network for network, n in times.items() if n > 1 and self._predictable(network)]

    def _predictable(self, network: Sequence[Block]) -> bool:
        try:
            self._predicted_ms([network])
        except LookupError:
            return False
        return True

    def _reference_ms(self, networks: Sequence[Sequence[Block]]) -> FloatArray:
        return self._with_shared(self._predicted_ms(networks), networks)

    def _predicted_ms(self, networks: Sequence[Sequence[Block]]) -> FloatArray:
        return np.stack([reference.predict(networks).mean_ms for reference in self._references], axis=1)

    def _measured_ms(self, networks: Sequence[Sequence[Block]]) -> FloatArray:
        """What the references took, (networks, references); NaN where they were not asked."""
        rows = [[found.get(tuple(blocks), np.nan) for found in self._measured] for blocks in networks]
        return np.array(rows, dtype=np.float64).reshape(len(networks), len(self._measured))

    def _with_shared(self, predicted_ms: FloatArray, networks: Sequence[Sequence[Block]]) -> FloatArray:
        return predicted_ms if self._shared is None else self._shared(predicted_ms, self._measured_ms(networks))


def for_table(
    table: LatencyTable, *, miss: Miss = "error", references: Sequence[LatencyTable] | None = None
) -> TransferredNetworks:
    """The transfer to the device of `table`, not yet fitted, from `references` or the other tables of its database.

    Its own blocks are one more reference where it has any. With `miss="estimate"` references estimate what they lack.
    """
    found = [*(_others(table) if references is None else references), table]
    fitted: list[LatencyPredictor] = []
    measured: list[dict[tuple[Block, ...], float]] = []
    for each in found:
        if each.latencies_ms():
            predictor = kernels_file.for_table(each, miss=miss)
            if each is not table:  # its own networks are what is learned from
                predictor.fit(each.measured("fit"))
            fitted.append(predictor)
            measured.append({} if each is table else dict(each.measured()))
    return TransferredNetworks(fitted, measured=measured, device=table.device.name)


def _others(table: LatencyTable) -> list[LatencyTable]:
    """The tables of other devices in the database of `table`, in the order of their beginning."""
    query = select(schema.tables).where(schema.tables.c.id != table.id).order_by(schema.tables.c.id)
    with table.database.reading() as connection:
        rows = connection.execute(query).all()
    return [LatencyTable(table.database, row) for row in rows]


def _together(references_ms: FloatArray) -> FloatArray:
    """Geometric mean over the references, (networks,)."""
    mean: FloatArray = np.exp(np.log(references_ms).mean(1))
    return mean
