"""What every latency predictor keeps: inherit it and give its name."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import pytest

from hwnas.devices import Measurement
from hwnas.latency import (
    AdditivePredictor,
    Block,
    BlockRow,
    Evidence,
    LatencyPredictor,
    LatencyTable,
    predictor_for,
    predictor_names,
)
from tests.latency.factories import conv_block
from tests.latency.toys import DEVICE, FINGERPRINT, MEASURED_AT, PROTOCOL

BLOCKS = [conv_block(channels) for channels in (1, 2, 3, 5, 8)]
UNHEARD = conv_block(13)


def _latency_ms(network: list[Block]) -> float:
    """A device on which a network takes 1.2 times the sum of its blocks, and a block its channels in ms."""
    return 1.2 * sum(float(dict(block.kwargs)["channels"]) for block in network)


class PredictorContract:
    """Inherit it as `class TestMine(PredictorContract): name = "mine"`."""

    name: ClassVar[str]

    @pytest.fixture
    def table(self, tmp_path: Path) -> LatencyTable:
        table = LatencyTable.open_for(tmp_path / "t.sqlite", DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
        rows = [
            BlockRow(block, Evidence(Measurement((float(dict(block.kwargs)["channels"]),), PROTOCOL, MEASURED_AT)))
            for block in BLOCKS
        ]
        table.add(rows, fingerprint=FINGERPRINT, protocol=PROTOCOL)
        return table

    @pytest.fixture
    def predictor(self, table: LatencyTable) -> LatencyPredictor:
        return predictor_for(table, name=self.name)

    @pytest.fixture
    def networks(self) -> list[list[Block]]:
        rng = np.random.default_rng(0)
        return [[BLOCKS[i] for i in rng.integers(0, len(BLOCKS), size)] for size in (3, 4, 5, 6, 7, 8, 9, 10)]

    def test_it_is_found_by_name(self) -> None:
        assert self.name in predictor_names()

    def test_it_predicts_before_it_was_fitted(self, predictor: LatencyPredictor, networks: list[list[Block]]) -> None:
        predictions = predictor.predict(networks)
        assert len(predictions) == len(networks)
        assert all(p.mean_ms > 0 and p.std_ms > 0 and p.missing == () for p in predictions)

    def test_measured_networks_teach_it(self, predictor: LatencyPredictor, networks: list[list[Block]]) -> None:
        predictor.fit([(network, _latency_ms(network)) for network in networks])
        unseen = [BLOCKS[4], BLOCKS[0], BLOCKS[2], BLOCKS[2], BLOCKS[1]]
        assert predictor.predict([unseen])[0].mean_ms == pytest.approx(_latency_ms(unseen), rel=0.1)

    def test_a_longer_network_takes_longer(self, predictor: LatencyPredictor, networks: list[list[Block]]) -> None:
        predictor.fit([(network, _latency_ms(network)) for network in networks])
        growing = predictor.predict([BLOCKS[:n] for n in (2, 3, 4, 5)])
        assert all(a.mean_ms < b.mean_ms for a, b in pairwise(growing))

    def test_nothing_to_predict_is_no_error(self, predictor: LatencyPredictor) -> None:
        assert len(predictor.predict([])) == 0

    def test_a_missing_block_is_an_error_not_a_zero(self, table: LatencyTable) -> None:
        with pytest.raises(LookupError, match="1 of 2 blocks"):
            predictor_for(table, name=self.name, miss="error").predict([[BLOCKS[0], UNHEARD]])

    def test_an_estimated_block_adds_time_and_doubt_and_is_named(
        self, table: LatencyTable, networks: list[list[Block]]
    ) -> None:
        predictor = predictor_for(table, name=self.name, miss="estimate")
        predictor.fit([(network, _latency_ms(network)) for network in networks])
        known, estimated = predictor.predict([BLOCKS[:3], [*BLOCKS[:3], UNHEARD]])
        assert (known.missing, estimated.missing) == ((), (UNHEARD,))
        assert estimated.mean_ms > 1.5 * known.mean_ms
        assert estimated.std_ms > known.std_ms

    def test_a_sum_that_is_corrected_is_the_prediction(
        self, predictor: LatencyPredictor, networks: list[list[Block]]
    ) -> None:
        if not hasattr(predictor, "block_ms"):
            pytest.skip("not additive")
        predictor = cast(AdditivePredictor, predictor)
        predictor.fit([(network, _latency_ms(network)) for network in networks])
        sums = np.array([sum(map(predictor.block_ms, network)) for network in networks])
        stds = np.array([sum(map(predictor.block_std_ms, network)) for network in networks])
        predictions = predictor.predict(networks)
        assert predictor.correct(sums) == pytest.approx(predictions.mean_ms)
        assert predictor.std_ms(sums, stds) == pytest.approx(predictions.std_ms)
        assert predictor.correct(sums.reshape(2, 4)).shape == (2, 4)
