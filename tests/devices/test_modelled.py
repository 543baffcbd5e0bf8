"""Devices that are formulas or simulators: the runner's contract, figures worked out by hand, and a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hwnas.devices import Device, DeviceError, Measurement, RunFailure, open_runner
from hwnas.devices.compile import Artefact, CompileJob, Compiler
from hwnas.devices.compile.cache import Manifest, store
from hwnas.devices.costs import Layer, Shape, layers
from hwnas.devices.modelled import modelled_devices
from hwnas.devices.runners import roofline, systolic
from hwnas.devices.runners._zigzag import Array, simulate
from hwnas.devices.runners.roofline import Roofline
from hwnas.engine import architecture as arch
from hwnas.engine.spaces.mobilenet_v3 import Stage
from hwnas.latency import Block, LatencyTable, build
from tests.devices.runner_contract import SHORT, RunnerContract
from tests.engine.spaces import mobilenet

# a million MACs and a million bytes a ms, 1 us a layer, 1 pJ a MAC, 10 pJ a byte
ROUND = Roofline("round", 1.0, 1.0, 8, 1.0, 1.0, 10.0)


def artefact_of(model: nn.Module, *shapes: Shape, folder: Path, key: str = "0" * 32) -> Path:
    content = json.dumps([layer.to_json() for layer in layers(model, *shapes)])
    return store(folder, Manifest(key, shapes), lambda path: _write(path, content), ".layers.json")


def _write(path: Path, content: str) -> None:
    path.write_text(content)


@pytest.fixture(scope="module")
def small_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.MaxPool2d(2))
    return artefact_of(model, (1, 4, 8, 8), folder=tmp_path_factory.mktemp("layers"))


class ModelledContract(RunnerContract):
    """What a modelled device keeps beside the runner's contract."""

    @pytest.fixture
    def artefact(self, small_network: Path) -> Path:
        return small_network

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Path:
        return store(tmp_path, Manifest("1" * 32, ()), lambda path: _write(path, '[{"kind": 3}]'), ".layers.json")

    def test_it_says_that_it_is_modelled(self, device: Device) -> None:
        assert open_runner(device).fingerprint().modelled

    def test_the_same_question_has_the_same_answer(self, device: Device, artefact: Path) -> None:
        first, second = (open_runner(device).time([artefact], SHORT)[0] for _ in range(2))
        assert isinstance(first, Measurement)
        assert isinstance(second, Measurement)
        assert (first.runs_ms, first.energy_mj) == (second.runs_ms, second.energy_mj)

    def test_one_run_carries_its_energy_and_has_no_spread(self, device: Device, artefact: Path) -> None:
        (timed,) = open_runner(device).time([artefact], SHORT)
        assert isinstance(timed, Measurement)
        assert timed.energy_mj is not None
        assert timed.energy_mj > 0
        assert timed.ci_ms() == (timed.latency_ms, timed.latency_ms)
        assert timed.outliers == 0

    def test_the_identity_moves_with_any_parameter(self, device: Device) -> None:
        presets: dict[str, object] = {**roofline.PRESETS, **systolic.PRESETS}
        other = json.dumps({**asdict(presets[device.address]), "mac_pj": 0.123})  # type: ignore[call-overload]
        changed = open_runner(replace(device, address=other)).fingerprint()
        assert changed.identity != open_runner(device).fingerprint().identity

    def test_an_address_that_is_no_specification_is_refused(self, device: Device) -> None:
        for address in ("", "no such preset", "[1]", '{"name": "x"}'):
            with pytest.raises(DeviceError, match=r"no specification.*give a preset"):
                open_runner(replace(device, address=address))

    def test_compiled_machine_code_is_no_list_of_layers(self, device: Device, tmp_path: Path) -> None:
        library = store(tmp_path, Manifest("2" * 32, ()), lambda path: _write(path, "\x7fELF"), ".so")
        (answer,) = open_runner(device).time([library], SHORT)
        assert isinstance(answer, RunFailure)


class TestRoofline(ModelledContract):
    @pytest.fixture
    def device(self) -> Device:
        return modelled_devices()["model-roofline-edge-npu"]


class TestSystolic(ModelledContract):
    @pytest.fixture
    def device(self) -> Device:
        pytest.importorskip("zigzag")
        return modelled_devices()["model-systolic-16x16"]


def _only(model: nn.Module, *shapes: Shape) -> Sequence[Layer]:
    return layers(model, *shapes)


def test_a_roofline_by_hand_where_arithmetic_is_the_longer() -> None:
    # 64 -> 64 channels, 10 x 10: 409600 MACs in 0.4096 ms; 6400 + 4096 + 64 + 6400 = 16960 bytes in 0.01696 ms
    cost = ROUND.cost(_only(nn.Conv2d(64, 64, 1), (1, 64, 10, 10)))
    assert cost.latency_ms == pytest.approx(0.4096 + 0.001)
    assert cost.energy_mj == pytest.approx((409600 + 169600) * 1e-9)


def test_a_roofline_by_hand_where_memory_is_the_longer() -> None:
    # one token through 100 x 100: 10000 MACs, 100 + 10000 + 100 bytes
    cost = ROUND.cost(_only(nn.Linear(100, 100, bias=False), (1, 100)))
    assert cost.latency_ms == pytest.approx(0.0102 + 0.001)


def test_half_the_bits_are_half_the_traffic() -> None:
    cost = replace(ROUND, bits=4).cost(_only(nn.Linear(100, 100, bias=False), (1, 100)))
    assert cost.latency_ms == pytest.approx(0.01 + 0.001)  # 5100 bytes: now the 10000 MACs are the longer


def test_an_activation_behind_a_layer_costs_arithmetic_and_no_traffic() -> None:
    alone = ROUND.cost(_only(nn.Conv2d(4, 4, 1), (1, 4, 5, 5)))
    active = ROUND.cost(_only(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), (1, 4, 5, 5)))
    assert active.latency_ms - alone.latency_ms == pytest.approx(100 / 1e6)


def test_pooling_pays_for_its_traffic() -> None:
    # 144 numbers in, 36 out, 1 byte each
    cost = ROUND.cost(_only(nn.MaxPool2d(2), (1, 4, 6, 6)))
    assert cost.latency_ms == pytest.approx(180e-6 + 0.001)
    assert cost.energy_mj == pytest.approx((144 + 1800) * 1e-9)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from((1, 3, 5)), st.integers(5, 20)),
    grown=st.integers(0, 3),
    preset=st.sampled_from(sorted(roofline.PRESETS)),
)
def test_more_work_is_never_faster_or_cheaper_on_a_roofline(
    sizes: tuple[int, int, int, int], grown: int, preset: str
) -> None:
    larger = list(sizes)
    larger[grown] += 2

    def cost_of(inputs: int, outputs: int, kernel: int, side: int) -> tuple[float, float]:
        model = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        cost = roofline.PRESETS[preset].cost(layers(model, (1, inputs, side, side)))
        return cost.latency_ms, cost.energy_mj

    before, after = cost_of(*sizes), cost_of(*larger)
    assert after[0] >= before[0]
    assert after[1] > before[1]


# 16 x 16 with memories that are no limit
FREE = Array(16, 16, 8, 32, 1 << 10, 1 << 16, 1 << 14, 1.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("rows", "reduced", "wide"),
    [(512, 64, 64), (784, 24, 144), (1024, 40, 20)],  # the last two leave parts of the array idle
)
def test_cycles_of_a_product_are_those_of_the_pipeline(rows: int, reduced: int, wide: int, tmp_path: Path) -> None:
    pytest.importorskip("zigzag")
    (layer,) = _only(nn.Linear(reduced, wide, bias=False), (rows, reduced))
    cycles, energy_pj = simulate(FREE, layer, tmp_path)
    # a row of inputs a cycle for each tile of weights, and the last result leaves after 15 rows and 15 columns
    pipeline = rows * -(-reduced // 16) * -(-wide // 16) + 30
    # around that at most every number passes the port of the SRAM, 16 x 8 + 16 x 40 bits, once, sums at full width
    around = ((rows * reduced + reduced * wide) * 8 + rows * wide * 32) / 768
    assert pipeline <= cycles <= pipeline + around
    assert energy_pj == pytest.approx(rows * reduced * wide)  # 1 pJ a MAC, the rest is free


def test_a_depthwise_layer_leaves_most_of_the_array_idle(tmp_path: Path) -> None:
    pytest.importorskip("zigzag")
    (layer,) = _only(nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), (1, 32, 16, 16))
    cycles, _ = simulate(FREE, layer, tmp_path)
    assert cycles >= 32 * 256  # a channel at a time, its 9 weights on 9 rows of one column: a cycle an output


def test_slow_memory_makes_a_layer_slower_and_the_array_alone_does_not(tmp_path: Path) -> None:
    pytest.importorskip("zigzag")
    (layer,) = _only(nn.Linear(256, 256, bias=False), (16, 256))
    fast, _ = simulate(FREE, layer, tmp_path)
    slow, _ = simulate(replace(FREE, dram_bits_per_cycle=8), layer, tmp_path)
    assert slow >= 256 * 256 > fast  # 65536 bytes of weights, one a cycle


def test_twice_the_tokens_take_longer_and_more_energy(tmp_path: Path) -> None:
    pytest.importorskip("zigzag")
    spec = systolic.PRESETS["16x16"]
    costs = [spec.cost(_only(nn.Linear(64, 64), (tokens, 64)), tmp_path) for tokens in (16, 32, 64)]
    assert costs[0].latency_ms < costs[1].latency_ms < costs[2].latency_ms
    assert costs[0].energy_mj < costs[1].energy_mj < costs[2].energy_mj


def test_what_the_array_cannot_run_is_charged_to_the_vector_unit(tmp_path: Path) -> None:
    spec = systolic.PRESETS["16x16"]
    # 1024 numbers in, 256 out: 64 cycles of 16 lanes, but 1280 bytes over 16 bytes a cycle are 80, at 1 GHz
    cost = spec.cost(_only(nn.MaxPool2d(2), (1, 4, 16, 16)), tmp_path)
    assert cost.latency_ms == pytest.approx(80e-6)
    # 0.3 pJ a number, 1280 bytes at 20.3125 pJ a bit of DRAM and twice 0.3125 of SRAM
    assert cost.energy_mj == pytest.approx((1024 * 0.3 + 1280 * 8 * (20.3125 + 0.625)) * 1e-9)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Conv1d(8, 16, 3, groups=2), (1, 8, 30)),
        (nn.Conv2d(8, 16, 5, stride=2, padding=2, dilation=2), (2, 8, 21, 21)),
        (nn.ConvTranspose2d(8, 16, 4, stride=2), (1, 8, 7, 7)),
        (nn.Conv3d(4, 8, 3), (1, 4, 7, 7, 7)),
        (nn.MultiheadAttention(16, 2), (9, 1, 16)),
    ],
)
def test_every_multiplying_layer_takes_at_least_its_share_of_the_array(
    model: nn.Module, shape: Shape, tmp_path: Path
) -> None:
    pytest.importorskip("zigzag")
    shapes = [shape] * (3 if isinstance(model, nn.MultiheadAttention) else 1)
    multiplying = [layer for layer in layers(model, *shapes) if layer.macs]
    for layer in multiplying:
        cycles, energy_pj = simulate(FREE, layer, tmp_path)
        assert cycles >= layer.macs / 256
        assert energy_pj == pytest.approx(layer.macs)


def test_an_answer_of_the_simulator_is_kept_beside_the_artefacts(tmp_path: Path) -> None:
    pytest.importorskip("zigzag")
    first, second = (replace(FREE, mac_pj=pj) for pj in (0.5, 0.6))
    (layer,) = _only(nn.Linear(8, 8), (4, 8))
    simulate(first, layer, tmp_path)
    simulate(first, layer, tmp_path)
    assert len(list(tmp_path.glob("zigzag-*.json"))) == 1
    simulate(second, layer, tmp_path)
    assert len(list(tmp_path.glob("zigzag-*.json"))) == 2
    assert not list(tmp_path.glob(".zigzag-*"))


def test_a_missing_simulator_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("hwnas.devices.runners._zigzag._version", missing)
    with pytest.raises(DeviceError, match=r"pip install 'hwnas\[accelerator\]'"):
        open_runner(modelled_devices()["model-systolic-16x16"])


def _blocks() -> list[Block]:
    space = mobilenet(stages=(Stage(widths=(8,), depths=(1,), kernels=(3,), expansions=(2, 3), stride=2),))
    return [block for block in arch.every_block(space) if block.factory.endswith("mbconv")][:2]


@pytest.mark.parametrize("name", ["model-systolic-128x128", "model-roofline-edge-npu"])
def test_a_table_is_built_for_a_modelled_device(name: str, tmp_path: Path) -> None:
    if "systolic" in name:
        pytest.importorskip("zigzag")
    device, blocks = modelled_devices()[name], _blocks()
    with Compiler(device.target, cache=tmp_path / "cache", workers=1, runtime=device.runtime) as compiler:
        runner = open_runner(device, compiler=compiler.versions())
        fingerprint = runner.fingerprint()
        table = LatencyTable.open_for(tmp_path / "t.sqlite", device, fingerprint=fingerprint, protocol=SHORT)
        report = build(table, blocks, compiler=compiler, runner=runner, protocol=SHORT)
    assert (report.tried, report.failed, report.added) == (2, 0, 2)
    assert table.modelled
    assert all(latency > 0 for latency in table.latencies_ms().values())
    energies = [table.measurement(block).energy_mj for block in blocks]
    assert all(energy is not None and energy > 0 for energy in energies)
    table.close()


def test_batch_norm_is_folded_before_layers_are_counted(tmp_path: Path) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())

    from hwnas.devices.runtimes.layers import read_layers

    with Compiler('{"kind": "llvm"}', cache=tmp_path, workers=1, runtime="layers") as compiler:
        ((_, result),) = compiler.compile([CompileJob(network, ((1, 3, 8, 8),), "network")])
    assert isinstance(result, Artefact), result
    assert [layer.kind for layer in read_layers(result.path)] == ["conv", "elementwise"]
