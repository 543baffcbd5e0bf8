from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwnas.devices import Device, Measurement
from hwnas.latency import Block, BlockRow, Evidence, LatencyTable, NetworkRow, predictor_for
from hwnas.latency.predictors import FloatArray
from hwnas.latency.predictors._transfer import Transfer
from tests.latency.factories import conv_block
from tests.latency.toys import DEVICE, FINGERPRINT, MEASURED_AT, PROTOCOL


def _devices(seed: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Latencies of 400 networks on three references, their MACs, and what a device between two references takes."""
    rng = np.random.default_rng(seed)
    convolutions, pools, blocks = rng.uniform(1, 20, 400), rng.uniform(1, 20, 400), rng.integers(5, 15, 400)
    gpu = 1 + 0.1 * convolutions + 0.5 * pools + 0.3 * blocks
    cpu = 2 + 2.0 * convolutions + 0.2 * pools + 0.1 * blocks
    phone = 5 + 1.0 * convolutions + 1.0 * pools + 0.5 * blocks
    target = 3 * (0.6 * gpu + 0.2 * cpu) * np.exp(0.02 * rng.normal(size=400))
    return np.stack([gpu, cpu, phone], axis=1), np.stack([convolutions, blocks], axis=1), target


def _error(predicted: FloatArray, measured: FloatArray) -> float:
    return float(np.mean(np.abs(predicted / measured - 1)))


def test_ten_probes_carry_latencies_to_a_new_device() -> None:
    for seed in range(3):
        references_ms, costs, target = _devices(seed)
        transfer = Transfer(references_ms, costs)
        probes = transfer.probes(10)
        mean, _ = transfer.fit(references_ms[probes], costs[probes], target[probes]).predict(references_ms, costs)
        macs = np.polyval(np.polyfit(costs[probes, 0], target[probes], 1), costs[:, 0])
        assert _error(mean, target) < 0.04
        assert _error(mean, target) < 0.3 * _error(macs, target)


def test_references_of_another_kind_are_not_believed() -> None:
    rng = np.random.default_rng(0)
    references_ms, costs, _ = _devices(0)
    unrelated = rng.permuted(references_ms, axis=0)
    target = 3 + 2 * costs[:, 0]
    transfer = Transfer(unrelated, costs)
    probes = transfer.probes(10)
    transfer.fit(unrelated[probes], costs[probes], target[probes])
    mean, _ = transfer.predict(unrelated, costs)
    assert _error(mean, target) < 0.1
    assert transfer.shares[1] < 0.1  # non-negative sums of references


def test_a_reference_given_again_at_another_speed_says_nothing_new() -> None:
    references_ms, costs, target = _devices(0)
    once = references_ms[:, :1]
    again = np.hstack([once, 3.7 * once, 0.1 * once])
    predicted = []
    for known in (once, again):
        transfer = Transfer(known, costs)
        probes = transfer.probes(10)
        predicted.append(transfer.fit(known[probes], costs[probes], target[probes]).predict(known, costs)[0])
    np.testing.assert_allclose(predicted[1], predicted[0], rtol=1e-4)


def test_the_deviation_of_a_new_device_covers_most() -> None:
    inside = []
    for seed in range(20):
        references_ms, costs, target = _devices(seed)
        transfer = Transfer(references_ms, costs)
        probes = transfer.probes(10)
        transfer.fit(references_ms[probes], costs[probes], target[probes])
        mean, std = transfer.predict(references_ms, costs)
        inside += list(np.abs(mean - target) <= 1.645 * std)
    assert np.mean(inside) > 0.85  # ten probes: calibrated it is not, and too narrow it must not be


def test_probes_are_the_farthest_apart() -> None:
    rng = np.random.default_rng(0)
    references_ms = np.exp(rng.normal(size=(200, 2)))
    transfer = Transfer(references_ms, np.ones((200, 1)))
    logs = np.log(references_ms)

    def spread(rows: np.ndarray) -> float:
        apart = np.linalg.norm(logs[rows][:, None] - logs[rows][None], axis=2)
        return float(apart[~np.eye(len(rows), dtype=bool)].min())

    probes = transfer.probes(8)
    assert len(set(probes.tolist())) == 8
    assert all(spread(probes) > spread(rng.choice(200, 8, replace=False)) for _ in range(20))
    assert not set(transfer.probes(5, taken=probes.tolist()).tolist()) & set(probes.tolist())


def test_more_probes_than_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit in a pool of 3"):
        Transfer(np.ones((3, 1)) + np.arange(3)[:, None], np.ones((3, 1))).probes(4)


def test_a_network_without_a_latency_on_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0 on every reference"):
        Transfer(np.array([[1.0], [0.0]]), np.ones((2, 1)))


def test_tables_of_one_database_are_each_others_references(tmp_path: Path) -> None:
    blocks = [conv_block(channels) for channels in (1, 2, 3, 5, 8, 13)]
    known = LatencyTable.open_for(tmp_path / "t.sqlite", DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    known.add(
        [
            BlockRow(block, Evidence(Measurement((float(dict(block.kwargs)["channels"]),), PROTOCOL, MEASURED_AT)))
            for block in blocks
        ],
        fingerprint=FINGERPRINT,
        protocol=PROTOCOL,
    )
    fresh = LatencyTable.open_for(
        tmp_path / "t.sqlite", Device("fresh", "{}"), fingerprint=FINGERPRINT, protocol=PROTOCOL
    )
    rng = np.random.default_rng(0)
    networks = [tuple(blocks[i] for i in rng.integers(0, 6, size)) for size in rng.integers(3, 9, 10)]

    def truth(network: tuple[object, ...]) -> float:
        return 1 + 2.5 * sum(float(dict(block.kwargs)["channels"]) for block in network)  # type: ignore[attr-defined]

    predictor = predictor_for(fresh, name="transfer")
    (before,) = predictor.predict([networks[0]])
    assert before.std_ms >= before.mean_ms  # nothing was measured on it
    predictor.fit([(network, truth(network)) for network in networks])
    unseen = (blocks[4], blocks[1], blocks[1], blocks[2])
    (after,) = predictor.predict([unseen])
    assert after.mean_ms == pytest.approx(truth(unseen), rel=0.1)
    assert after.std_ms < 0.3 * after.mean_ms


def test_without_any_table_of_a_device_the_cure_is_told(tmp_path: Path) -> None:
    table = LatencyTable.open_for(tmp_path / "t.sqlite", DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    with pytest.raises(LookupError, match="build one in the same database"):
        predictor_for(table, name="transfer")


def test_what_references_found_alike_in_a_network_is_carried_to_the_new_device(tmp_path: Path) -> None:
    """Tables of block latencies, whose sums miss what an odd network costs on every device."""
    blocks = [conv_block(channels) for channels in (1, 2, 3, 5, 8, 13)]
    rng = np.random.default_rng(0)
    networks = list({tuple(blocks[i] for i in rng.integers(0, 6, rng.integers(3, 9))): None for _ in range(80)})

    def summed(network: tuple[Block, ...]) -> float:
        return sum(float(str(dict(block.kwargs)["channels"])) for block in network)

    odd = {network: float(np.exp(0.15 * rng.normal())) for network in networks}

    def database(name: str, *, measures: bool) -> Path:
        for device, speed in (("a", 1.0), ("b", 0.4), ("c", 2.0)):
            found = LatencyTable.open_for(
                tmp_path / name, Device(device, "{}"), fingerprint=FINGERPRINT, protocol=PROTOCOL
            )
            rows = [BlockRow(block, Evidence(Measurement((speed * summed((block,)),), PROTOCOL, MEASURED_AT)))
                    for block in blocks]  # fmt: skip
            whole = [
                NetworkRow(str(i), "check", network, Evidence(Measurement((latency,), PROTOCOL, MEASURED_AT)))
                for i, network in enumerate(networks)
                if measures
                for latency in (speed * summed(network) * odd[network] * float(np.exp(0.02 * rng.normal())),)
            ]
            found.add([*rows, *whole], fingerprint=FINGERPRINT, protocol=PROTOCOL)
        return tmp_path / name

    truth = np.array([3 * summed(network) * odd[network] for network in networks])
    errors = []
    for measures in (True, False):
        fresh = LatencyTable.open_for(
            database(f"{measures}.sqlite", measures=measures), Device("fresh", "{}"), fingerprint=FINGERPRINT,
            protocol=PROTOCOL,
        )  # fmt: skip
        predictor = predictor_for(fresh, name="transfer")
        predictor.fit([(networks[i], float(truth[i])) for i in range(10)])
        errors.append(_error(predictor.predict(networks[10:]).mean_ms, truth[10:]))
    assert errors[0] < 0.6 * errors[1]
