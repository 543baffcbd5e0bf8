"""Quantisation after training: codes, ranges, sizes, and an ONNX model that computes what the simulation does."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hwnas.devices.compile.job import Settings
from hwnas.devices.runtimes import layers as layers_runtime
from hwnas.devices.runtimes import onnxruntime
from hwnas.engine.evaluation.batchnorm import recalibrate
from hwnas.engine.evaluation.complexity import block_macs, block_weight_mib
from hwnas.engine.quantisation import (
    ActivationRange,
    QuantisedExportError,
    QuantisedLayer,
    pack,
    quantisable,
    quantise_weight,
    quantised,
    unpack,
)
from hwnas.engine.spaces.mixed_precision import block_of
from hwnas.engine.spaces.mobilenet_v3 import blocks
from hwnas.latency.block import Block

seeds = st.integers(0, 10_000)
some_bits = st.integers(2, 8)
MBCONV = Block.of(
    "mobilenet_v3.mbconv",
    (1, 8, 6, 6),
    **{"in_channels": 8, "out_channels": 8, "kernel": 3, "stride": 1, "hidden": 24, "se": True, "activation": "relu"},
)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def worn_conv(seed: int = 0) -> nn.Sequential:
    """Convolution, BatchNorm that is not the identity, ReLU."""
    torch.manual_seed(seed)
    network = blocks.ConvBnAct(3, 6, kernel=3, stride=2, activation="relu").eval()
    nn.init.uniform_(network.norm.weight, -1.5, 1.5)
    nn.init.normal_(network.norm.bias)
    return network


# ---- weights --------------------------------------------------------------------------------------------------------


@given(seeds, some_bits)
def test_packing_loses_nothing_and_takes_the_bits_that_it_says(seed: int, bits: int) -> None:
    most = 2 ** (bits - 1) - 1
    codes = torch.from_numpy(np.random.default_rng(seed).integers(-most, most + 1, (3, 7))).to(torch.int8)
    packed = pack(codes, bits)
    assert len(packed) == -(-21 * bits // 8)
    assert torch.equal(unpack(packed, bits, codes.shape), codes)


@settings(deadline=None)
@given(seeds, some_bits)
def test_codes_fit_their_bits_and_no_scale_of_the_grid_is_better(seed: int, bits: int) -> None:
    weight = drawn(seed, 4, 10)
    codes, scale = quantise_weight(weight, bits)
    most = 2 ** (bits - 1) - 1
    assert int(codes.abs().max()) <= most
    error = (codes * scale[:, None] - weight).square().sum(1)
    for clip in (0.3, 0.55, 0.8, 1.0):
        other = weight.abs().amax(1, keepdim=True) * clip / most
        assert (error <= ((weight / other).round().clamp(-most, most) * other - weight).square().sum(1) + 1e-5).all()


@given(seeds)
def test_eight_bits_are_within_half_a_step_of_the_weight_and_more_bits_are_never_worse(seed: int) -> None:
    weight = drawn(seed, 3, 20)
    errors = []
    for bits in range(2, 9):
        codes, scale = quantise_weight(weight, bits)
        errors.append(float((codes * scale[:, None] - weight).square().sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4 * float(weight.square().sum())


def test_a_channel_of_zeros_stays_zeros() -> None:
    codes, scale = quantise_weight(torch.zeros(2, 5), 4)
    assert (codes == 0).all()
    assert torch.isfinite(scale).all()


@pytest.mark.parametrize("bits", [1, 9, 32])
def test_other_precisions_are_an_error_that_names_them(bits: int) -> None:
    with pytest.raises(ValueError, match=f"{bits} bits: give 2 to 8"):
        quantise_weight(torch.zeros(1, 1), bits)


@settings(deadline=None, max_examples=20)
@given(seeds, some_bits)
def test_folding_batch_norm_into_a_channel_changes_no_code(seed: int, bits: int) -> None:
    weight, gain = drawn(seed, 4, 9), drawn(seed + 1, 4).abs() + 0.1
    assert torch.equal(quantise_weight(weight, bits)[0], quantise_weight(weight * gain[:, None], bits)[0])


# ---- activations ----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(seeds, st.integers(4, 8), st.floats(-3, 3))
def test_what_lies_in_the_range_moves_by_half_a_step_at_most(seed: int, bits: int, middle: float) -> None:
    x = drawn(seed, 30) + middle
    limits = ActivationRange(bits).train()
    limits(x)
    limits.eval()
    step = (max(float(x.max()), 0) - min(float(x.min()), 0)) / (2**bits - 1)
    assert float((limits(x) - x).abs().max()) <= step * 0.501 + 1e-6
    assert float(limits(torch.zeros(1))) == 0  # as padding has to be
    assert len(limits(torch.linspace(-9, 9, 2000)).unique()) <= 2**bits


def test_ranges_are_calibrated_with_batch_norm_over_all_batches() -> None:
    network = quantised(worn_conv(), bits=8)
    layer = next(module for module in network.modules() if isinstance(module, QuantisedLayer))
    batches = [drawn(1, 4, 3, 8, 8), 5 * drawn(2, 4, 3, 8, 8)]
    for _ in range(2):  # the second time anew, not on top
        recalibrate(network, batches)
        assert float(layer.range.high) == float(batches[1].max())
        assert float(layer.range.low) == float(batches[1].min())
    before = float(layer.range.high)
    network(100 * batches[0])
    assert float(layer.range.high) == before


# ---- networks -------------------------------------------------------------------------------------------------------


def test_eight_bits_answer_nearly_as_floats_do_and_two_bits_differ() -> None:
    network, x = worn_conv(), drawn(3, 8, 3, 8, 8)
    with torch.no_grad():
        expected = network(x)
        gaps = []
        for bits in (8, 4, 2):
            quantum = quantised(network, bits=bits)
            for module in quantum.modules():
                if isinstance(module, ActivationRange):
                    module.train()
            quantum(x)
            gaps.append(float((quantum.eval()(x) - expected).square().mean() / expected.square().mean()))
    assert gaps[0] < 1e-3 < gaps[1] < gaps[2]


def test_the_network_that_was_quantised_is_left_alone() -> None:
    network = worn_conv()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    quantised(network, bits=2)
    assert [type(module) for module in network] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_loaded_state_computes_what_the_saved_one_did() -> None:
    first, second = quantised(worn_conv(0), bits=4), quantised(worn_conv(1), bits=4)
    x = drawn(3, 2, 3, 8, 8)
    recalibrate(first, [x])
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_block_weighs_its_bits(bits: int) -> None:
    convolutions = 8 * 24 + 24 * 9 + 24 * 8 + 24 * 8 + 8 * 24  # expand, depthwise, squeeze, excite, project
    layers, floats = 5, 8 + 24 + 24 + 24 + 8  # scales a channel; biases of the gates and norms stay floats
    saved = 4 * convolutions - convolutions * bits / 8
    added = 4 * floats + layers * 4 * 4  # and two ends of two ranges a layer
    expected = block_weight_mib(MBCONV) - (saved - added) / 2**20
    assert block_weight_mib(block_of(MBCONV, bits=bits, activation_bits=8)) == pytest.approx(expected)
    assert block_macs(block_of(MBCONV, bits=bits, activation_bits=8)) == block_macs(MBCONV)


def test_a_block_that_is_made_weighs_what_it_was_counted_to() -> None:
    block = block_of(MBCONV, bits=3, activation_bits=8)
    made = block.recipe()()
    held = sum(t.numel() * t.element_size() for t in (*made.parameters(), *made.buffers()))
    assert held / 2**20 == block_weight_mib(block)


def test_a_quantised_block_survives_json_and_32_bits_are_the_block_itself() -> None:
    block = block_of(MBCONV, bits=4, activation_bits=8)
    assert Block.from_json(json.loads(json.dumps(block.to_json()))) == block
    assert block_of(MBCONV, bits=32, activation_bits=8) == MBCONV


def test_a_process_that_has_imported_no_space_makes_the_block() -> None:
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)().expand is not None)"
    recipe = pickle.dumps(block_of(MBCONV, bits=4, activation_bits=8).recipe())
    found = subprocess.run([sys.executable, "-c", code], input=recipe, capture_output=True, check=True)
    assert found.stdout.strip() == b"True"


def test_pooling_has_nothing_to_quantise() -> None:
    assert not quantisable(nn.Sequential(nn.AvgPool2d(2), nn.ReLU()))
    assert quantisable(worn_conv())


# ---- runtimes -------------------------------------------------------------------------------------------------------


def test_the_simulation_is_neither_compiled_nor_modelled_as_floats(tmp_path: Path) -> None:
    network = quantised(worn_conv(), bits=8)
    with pytest.raises(QuantisedExportError, match="runtime = 'onnxruntime'"):
        torch.export.export(network, (torch.zeros(1, 3, 8, 8),))
    settings = Settings('{"kind": "llvm"}', tmp_path, "cpu", "test", "layers")
    with pytest.raises(QuantisedExportError, match="not that of integers"):
        layers_runtime.prepare(network, ((1, 3, 8, 8),), settings)


@pytest.mark.parametrize("bits", [4])  # eight are stored alike
def test_onnx_runtime_computes_integers_as_the_simulation_says(bits: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    head = blocks.Head(6, 12, 8, 5, "hswish")
    network = quantised(nn.Sequential(worn_conv(), head), bits=bits)
    recalibrate(network, [drawn(i, 16, 3, 8, 8) for i in range(4)])
    settings = Settings('{"kind": "llvm"}', tmp_path, "cpu", "test", "onnxruntime")
    path = tmp_path / "network.onnx"
    onnxruntime.prepare(network, ((1, 3, 8, 8),), settings).write(path)
    loaded = onnxruntime.load(str(path), 1)
    found, expected = [], []
    for seed in range(20):
        x = drawn(100 + seed, 1, 3, 8, 8)
        loaded.set_inputs([x.numpy()])
        found.append(loaded.output())
        with torch.no_grad():
            expected.append(network(x).numpy())
    gap = np.abs(np.array(found) - np.array(expected))
    # a sum that falls between two codes may go either way: a step of 1/255 of a range, not more
    assert gap.max() < 0.05 * np.array(expected).std()
    import onnx

    model = onnx.load_from_string(path.read_bytes())
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
    stored = {i.data_type for i in model.graph.initializer if len(i.dims) == 4}
    assert stored <= {onnx.TensorProto.INT8}
