"""Shifts and additions: what they compute, how gradients reach them, and that nothing times their emulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.devices.compile.job import Settings
from hwnas.devices.costs import layers
from hwnas.devices.runtimes import layers as layers_runtime
from hwnas.engine.spaces._shift_adder import (
    ADDER_RATE,
    AdderConv2d,
    EmulatedOperatorError,
    PiecewiseScale,
    ShiftConv2d,
    adder_conv2d,
    fixed_point,
    power_of_two,
)

seeds = st.integers(0, 10_000)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(seeds)
def test_shifted_weights_are_powers_of_two_at_most_half_an_octave_away(seed: int) -> None:
    weight = drawn(seed, 50) * 0.3
    found = power_of_two(weight)
    exponents = found.abs().log2()
    held = weight.abs() >= 2.0**-14
    assert torch.equal(exponents[held], exponents[held].round())
    assert float(exponents.max()) <= 0
    assert torch.equal(found.sign()[held], weight.sign()[held])
    free = held & (weight.abs() <= 1)
    assert float((exponents - weight.abs().log2()).abs()[free].max()) <= 0.5 + 1e-5


def test_powers_of_two_stay_and_what_is_too_small_becomes_zero() -> None:
    weight = torch.tensor([1.0, -0.5, 2.0**-14, 0.0, 2.0**-16, -3.0])
    assert power_of_two(weight).tolist() == [1.0, -0.5, 2.0**-14, 0.0, 0.0, -1.0]


def test_rounding_to_powers_lets_the_gradient_through() -> None:
    weight = torch.tensor([0.3, -0.7], requires_grad=True)
    (power_of_two(weight) * torch.tensor([2.0, 5.0])).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0, 5.0]


def test_fixed_point_has_sixteen_bits() -> None:
    x = torch.tensor([0.001, 0.0039, -500.0, 500.0])
    assert fixed_point(x).tolist() == [0.0, 2**-8, -128.0, 128 - 2**-8]


def slow_adder(x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
    """By its definition, number by number."""
    padded = torch.nn.functional.pad(x, (padding,) * 4)
    n, o, k = len(x), len(weight), weight.shape[-1]
    rows = range(0, padded.shape[2] - k + 1, stride)
    columns = range(0, padded.shape[3] - k + 1, stride)
    y = torch.zeros(n, o, len(rows), len(columns))
    for image in range(n):
        for channel in range(o):
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    patch = padded[image, :, row : row + k, column : column + k]
                    y[image, channel, i, j] = -(patch - weight[channel]).abs().sum()
    return y


@settings(deadline=None, max_examples=15)
@given(seeds, st.sampled_from([1, 2]), st.sampled_from([1, 3]))
def test_an_addition_layer_is_minus_the_distance_of_patch_and_filter(seed: int, stride: int, kernel: int) -> None:
    x, weight = drawn(seed, 2, 3, 5, 4), drawn(seed + 1, 2, 3, kernel, kernel)
    found = adder_conv2d(x, weight, stride=stride, padding=kernel // 2)
    assert torch.allclose(found, slow_adder(x, weight, stride, kernel // 2), atol=1e-4)


@settings(deadline=None, max_examples=15)
@given(seeds)
def test_the_gradients_of_an_addition_layer_are_adder_nets(seed: int) -> None:
    x, weight, g = drawn(seed, 2, 2, 1, 1), drawn(seed + 1, 3, 2, 1, 1), drawn(seed + 2, 2, 3, 1, 1)
    x.requires_grad_()
    weight.requires_grad_()
    adder_conv2d(x, weight, stride=1, padding=0).backward(g)
    into_x, into_weight = torch.zeros(2, 2), torch.zeros(3, 2)
    for p in range(2):
        for o in range(3):
            difference = x.detach()[p, :, 0, 0] - weight.detach()[o, :, 0, 0]
            into_x[p] += (-difference).clamp(-1, 1) * g[p, o, 0, 0]
            into_weight[o] += difference * g[p, o, 0, 0]
    into_weight *= ADDER_RATE * 6**0.5 / into_weight.norm()
    assert x.grad is not None
    assert weight.grad is not None
    assert torch.allclose(x.grad[:, :, 0, 0], into_x, atol=1e-5)
    assert torch.allclose(weight.grad[:, :, 0, 0], into_weight, atol=1e-5)


@given(seeds, st.integers(1, 30))
def test_every_weight_is_in_a_bin_the_largest_too(seed: int, bins: int) -> None:
    weight = drawn(seed, 40)
    scale = PiecewiseScale(bins)
    with torch.no_grad():
        scale.scales.copy_(torch.arange(1.0, bins + 1))
    edges = np.linspace(float(weight.min()), float(weight.max()), bins + 1)
    expected = []
    for w in weight.tolist():
        number = next((i for i in range(bins) if edges[i] <= w < edges[i + 1]), bins - 1)
        expected.append(w * (number + 1))
    found = scale(weight).detach()
    close = np.isclose(found.numpy(), expected, atol=1e-5)
    assert close.mean() > 0.9  # a weight on an edge may fall to either side in floats
    assert float(found[weight.argmax()]) == pytest.approx(float(weight.max()) * bins)


def test_a_step_on_a_weight_moves_the_mapped_weight_as_far() -> None:
    weight = torch.nn.Parameter(torch.tensor([-1.0, 0.2, 1.0]))
    scale = PiecewiseScale(1, scale=25.0)
    g = torch.tensor([1.0, -2.0, 0.5])
    before = scale(weight).detach()
    scale(weight).backward(g)
    assert weight.grad is not None
    moved = scale(weight - 0.01 * weight.grad).detach() - before
    assert torch.allclose(moved, -0.01 * g, atol=1e-5)


def test_scales_learn_by_the_weights_in_their_bin() -> None:
    weight = torch.tensor([-1.0, 0.9, 1.0])
    scale = PiecewiseScale(2)
    scale(weight).backward(torch.tensor([3.0, 1.0, 2.0]))
    assert scale.scales.grad is not None
    assert scale.scales.grad.tolist() == pytest.approx([-3.0, 2.9])


def test_a_scale_that_would_flip_signs_is_an_error() -> None:
    with pytest.raises(ValueError, match="scale=-1"):
        PiecewiseScale(10, scale=-1)


@pytest.mark.parametrize("kind", [ShiftConv2d, AdderConv2d])
def test_an_emulated_layer_is_neither_exported_nor_modelled(kind: type[ShiftConv2d], tmp_path: Path) -> None:
    layer = kind(2, 3, 3).eval()
    assert layer(torch.zeros(1, 2, 5, 5)).shape == (1, 3, 5, 5)
    with pytest.raises(EmulatedOperatorError, match="weigh it by energy"):
        torch.export.export(layer, (torch.zeros(1, 2, 5, 5),))
    settings = Settings('{"kind": "llvm"}', tmp_path, "cpu", "test", "layers")
    with pytest.raises(EmulatedOperatorError, match="leave it out of latency tables"):
        layers_runtime.prepare(layer, ((1, 2, 5, 5),), settings)


@pytest.mark.parametrize("kind", [ShiftConv2d, AdderConv2d])
def test_a_layer_made_to_be_counted_has_an_accumulation_for_every_multiplication(kind: type[ShiftConv2d]) -> None:
    with torch.device("meta"):
        layer = kind(2, 3, 3, stride=2)
    assert sum(each.macs for each in layers(layer, (1, 2, 5, 5))) == 3 * 9 * 2 * 9
