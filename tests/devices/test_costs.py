from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hwnas.devices.costs import MULTIPLYING, Layer, Shape, layers, macs, params, weight_bytes


class Attention(nn.Module):
    """Scaled dot-product attention of an input with itself."""

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)


class Product(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left @ right


# (layer, shapes of its inputs, kind, MACs by hand, weights by hand)
BY_HAND = [
    # 16 x 16 outputs x 8 channels, each over 3 x 3 x 3
    (nn.Conv2d(3, 8, 3, stride=2, padding=1), [(1, 3, 32, 32)], "conv", 256 * 8 * 27, 8 * 27 + 8),
    # no padding: 30 x 30 outputs; a batch of 2
    (nn.Conv2d(3, 8, 3, bias=False), [(2, 3, 32, 32)], "conv", 2 * 900 * 8 * 27, 8 * 27),
    # dilation 2 spans 5: 28 x 28 outputs
    (nn.Conv2d(3, 8, 3, dilation=2), [(1, 3, 32, 32)], "conv", 784 * 8 * 27, 224),
    # two groups of 4 inputs each
    (nn.Conv2d(8, 6, 1, groups=2), [(1, 8, 5, 5)], "conv", 25 * 6 * 4, 6 * 4 + 6),
    (nn.Conv2d(8, 8, 5, padding=2, groups=8), [(1, 8, 7, 7)], "depthwise", 49 * 8 * 25, 8 * 25 + 8),
    # 9 - 3 + 1 = 7 outputs
    (nn.Conv1d(4, 6, 3), [(1, 4, 9)], "conv", 7 * 6 * 4 * 3, 6 * 12 + 6),
    # each of 25 inputs x 4 channels meets 6 x 3 x 3
    (nn.ConvTranspose2d(4, 6, 3, stride=2), [(1, 4, 5, 5)], "transposed", 100 * 54, 4 * 54 + 6),
    (nn.Linear(16, 5), [(3, 16)], "linear", 3 * 16 * 5, 16 * 5 + 5),
    (nn.Linear(16, 5), [(2, 7, 16)], "linear", 14 * 16 * 5, 85),
    (Product(), [(2, 3, 4, 5), (2, 3, 5, 6)], "matmul", 6 * 4 * 5 * 6, 0),
]


@pytest.mark.parametrize(("model", "shapes", "kind", "by_hand", "weights"), BY_HAND)
def test_macs_and_weights_are_those_counted_by_hand(
    model: nn.Module, shapes: list[Shape], kind: str, by_hand: int, weights: int
) -> None:
    (layer,) = [found for found in layers(model, *shapes) if found.kind in MULTIPLYING]
    assert (layer.kind, layer.macs) == (kind, by_hand)
    assert params(model) == weights
    assert layer.weight_elements in (weights, weights - (layer.output[-1] if kind == "linear" else 0))


def test_attention_is_two_products_and_a_softmax() -> None:
    # 2 x 4 heads: 10 x 10 scores over 8 numbers, then 10 x 8 outputs over 10 scores
    found = [layer for layer in layers(Attention(), (2, 4, 10, 8)) if layer.kind in ("matmul", "norm")]
    assert [layer.kind for layer in found] == ["matmul", "norm", "matmul"]
    assert [layer.macs for layer in found] == [8 * 100 * 8, 0, 8 * 80 * 10]


def test_an_encoder_layer_is_counted_whole() -> None:
    # 20 tokens of 32: queries, keys, values 3 x 32 x 32, output 32 x 32, 32 x 64 there and back, 2 x 8 x 100 x 8 scores
    encoder = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    assert macs(encoder, (2, 10, 32)) == 20 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 8 * 100 * 8


def test_a_recurrent_layer_is_counted_at_every_step() -> None:
    # 4 gates x 16 over 8 inputs and 16 states, 2 sequences of 5 steps
    assert macs(nn.LSTM(8, 16, batch_first=True), (2, 5, 8)) == 10 * 64 * 24


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 4),
    groups=st.sampled_from((1, 2)),
    kernel=st.sampled_from((1, 3, 5)),
    stride=st.integers(1, 3),
    transposed=st.booleans(),
)
def test_convolutions_agree_with_the_flop_counter_of_torch(
    channels: int, groups: int, kernel: int, stride: int, transposed: bool
) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    model = kind(2 * channels, 4, kernel, stride=stride, groups=groups)
    shape = (2, 2 * channels, 9, 7)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(shape))
    assert 2 * macs(model, shape) == counter.get_total_flops()


def test_activations_and_pooling_have_no_macs_and_their_elements() -> None:
    model = nn.Sequential(nn.Hardswish(), nn.MaxPool2d(2), nn.BatchNorm2d(4))
    found = layers(model, (1, 4, 6, 6))
    assert [layer.kind for layer in found] == ["elementwise", "pool", "norm"]
    assert [(layer.input_elements, layer.output_elements, layer.macs) for layer in found] == [
        (144, 144, 0),
        (144, 36, 0),
        (36, 36, 0),
    ]


def test_views_cost_nothing_and_keep_their_source() -> None:
    flat = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    relu, linear = layers(flat, (1, 4, 2, 2))
    assert (relu.sources, linear.sources) == ((-1,), (0,))


def test_what_depends_on_weights_alone_is_no_layer() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x @ (2 * self.weight).softmax(-1)

    assert [layer.kind for layer in layers(Scaled(), (3, 4))] == ["linear"]


def test_an_operator_of_unknown_work_is_an_error_not_a_zero() -> None:
    class Trilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bilinear = nn.Bilinear(3, 4, 5)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.bilinear(left, right)

    with pytest.raises(ValueError, match="_trilinear"):
        layers(Trilinear(), (2, 3), (2, 4))


def test_counting_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers(model, (2, 1, 5, 5))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_layer_survives_json() -> None:
    for layer in layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (1, 3, 8, 8)):
        assert Layer.from_json(layer.to_json()) == layer


def test_weight_bytes_follow_the_stored_and_the_quantised_width() -> None:
    model = nn.Conv2d(3, 8, 3)  # 216 + 8 numbers
    assert weight_bytes(model) == 4 * 224
    assert weight_bytes(model, bits=8) == 224
    assert weight_bytes(model.half()) == 2 * 224
