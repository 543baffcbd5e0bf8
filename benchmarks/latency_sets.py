"""The public latency tables that benchmarks/latency.py reads, each as networks x features and networks x devices.

Every set describes a network twice, as the product's predictors do: by what it is made of (an option a place) and by
what it costs (MACs, weights, bytes moved, operations). MACs are counted from the search spaces' published layouts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FLAGGED = "sums or partly near zero"


@dataclass(frozen=True)
class LatencySet:
    """Measured latencies of n networks on some devices, and two descriptions of the networks."""

    name: str
    costs: FloatArray  # (n, costs): MACs first, then what else a network is charged for; none is negative
    parts: FloatArray  # (n, parts): which option stands at which place, as indicators
    latency_ms: dict[str, FloatArray]  # device -> (n,)
    groups: IntArray  # (n,): networks of one group are the same network and share a side of every split
    flagged: tuple[str, ...] = ()  # devices whose figures the source itself does not stand behind
    order: FloatArray | None = None  # (n, 1): when each was measured, where the latencies drift with it

    @property
    def macs(self) -> FloatArray:
        """Multiply-accumulates, (n,)."""
        return self.costs[:, 0]


def data_folder() -> Path:
    """Where the tables lie: $HWNAS_DATA, else ../shared/data beside the repository."""
    return Path(os.environ.get("HWNAS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def fbnet(folder: Path) -> LatencySet:
    """FBNet (Wu et al., 2019) on the devices of HELP: 22 places of 9 options."""
    frame = pd.read_parquet(folder / "fbnet_latency.parquet")
    chosen = frame[[f"op{i}" for i in range(22)]].to_numpy()
    per_place = np.array(_fbnet_costs())  # (places, options, costs)
    return LatencySet(
        "FBNet",
        per_place[np.arange(22), chosen].sum(1),
        np.hstack([_one_hot(chosen, [9] * 22), _counts(chosen, np.arange(9))]),
        _latencies(frame),
        np.arange(len(frame)),
        ("pixel3",),
    )


def nb201(folder: Path) -> LatencySet:
    """NAS-Bench-201 (Dong and Yang, 2020) on the devices of HELP: a cell of 6 edges, 15 cells.

    Edges that lead nowhere are described as they stand: the runtimes of these devices spend their time on them.
    """
    frame = pd.read_parquet(folder / "nb201_latency.parquet")
    classes = pd.read_parquet(folder / "nb201_accuracy.parquet").set_index("idx")["canonical"]
    chosen = frame[[f"op{i}" for i in range(6)]].to_numpy()
    counts = _counts(chosen, np.arange(5))  # nothing, skips, 1x1, 3x3, pools
    return LatencySet(
        "NB201",
        np.stack([9 * counts[:, 3] + counts[:, 2], counts[:, 2:].sum(1)], axis=1),  # MACs of a 1x1 are one; operations
        np.hstack([_one_hot(chosen, [5] * 6), counts]),
        _latencies(frame),
        pd.factorize(frame["idx"].map(classes))[0].astype(np.int64),
        ("pixel3",),
    )


def ofa(folder: Path) -> LatencySet:
    """Once-for-All's MobileNetV3 (Cai et al., 2020): 5 stages of 2 to 4 blocks, at resolutions of 128 to 224."""
    frame = pd.read_parquet(folder / "ofa_latency.parquet")
    depths = frame[[f"d{i}" for i in range(5)]].to_numpy()
    kernels = frame[[f"ks{i}" for i in range(20)]].to_numpy()
    expands = frame[[f"e{i}" for i in range(20)]].to_numpy()
    resolution = frame["r"].to_numpy(dtype=np.float64)
    there = (np.arange(4) < depths[:, :, None]).reshape(len(frame), 20)
    option = np.where(there, 1 + 3 * np.searchsorted([3, 5, 7], kernels) + np.searchsorted([3, 4, 6], expands), 0)
    one_hot, counts = _one_hot(option, [10] * 20), _counts(option, np.arange(10))
    area = (resolution / 224) ** 2
    per_place = np.array(_ofa_costs())  # (places, options, costs) at 224 x 224
    costs = per_place[np.arange(20), option].sum(1)  # MACs, bytes moved, weights, blocks
    scaled = costs[:, :2] * area[:, None]
    return LatencySet(
        "OFA",
        np.hstack([scaled, costs[:, 2:], area[:, None]]),
        np.hstack([one_hot, one_hot * area[:, None], counts, counts * area[:, None]]),
        _latencies(frame),
        np.arange(len(frame)),
    )


def hat(folder: Path) -> list[LatencySet]:
    """HAT's transformers (Wang et al., 2020), a set a device, as no network was timed on two of them.

    The layers' averages are all that was kept of a network.
    """
    frame = pd.read_parquet(folder / "hat_latency.parquet")
    return [_hat(f"{task} {device}", rows) for (task, device), rows in frame.groupby(["task", "device"])]


READERS: dict[str, Callable[[Path], list[LatencySet]]] = {
    "HAT": hat,
    "FBNet": lambda folder: [fbnet(folder)],
    "NB201": lambda folder: [nb201(folder)],
    "OFA": lambda folder: [ofa(folder)],
}


def _hat(device: str, rows: pd.DataFrame) -> LatencySet:
    names = [name for name in rows if str(name).startswith(("encoder_", "decoder_"))]
    wide, layers = rows["encoder_embed_dim"], rows["decoder_layer_num"]
    width = rows["decoder_embed_dim"]
    attention = 512  # width of queries, keys and values, whatever the number of heads
    encoder = rows["encoder_layer_num"] * wide * (4 * attention + 2 * rows["encoder_ffn_embed_dim_avg"])
    decoder = layers * (width * (6 * attention + 2 * rows["decoder_ffn_embed_dim_avg"]) + 2 * wide * attention)
    costs = np.stack([encoder + decoder, encoder, decoder, layers, width, wide], axis=1)  # MACs a token
    raw = rows[names].to_numpy(dtype=np.float64)
    # the decoder runs once a word, layer by layer: what its layers hold counts once a layer
    held = [i for i, name in enumerate(names) if name.startswith("decoder_") and name != "decoder_layer_num"]
    parts = np.hstack([raw / raw.max(0), (raw[:, held] / raw[:, held].max(0)) * layers.to_numpy()[:, None] / 6])
    indicators = _one_hot(layers.to_numpy()[:, None] - 1, [6])
    latency = {device: rows["total_ms"].to_numpy(dtype=np.float64)}
    return LatencySet(
        "HAT",
        costs.astype(np.float64),
        np.hstack([parts, indicators]),
        latency,
        np.arange(len(rows)),
        order=rows[["row"]].to_numpy(dtype=np.float64),
    )


def _latencies(frame: pd.DataFrame) -> dict[str, FloatArray]:
    return {name[4:]: frame[name].to_numpy(dtype=np.float64) for name in frame if name.startswith("lat_")}


def _counts(chosen: NDArray[np.integer], options: NDArray[np.integer]) -> FloatArray:
    return (chosen[:, :, None] == options).sum(1).astype(np.float64)


def _one_hot(chosen: NDArray[np.integer], sizes: list[int]) -> FloatArray:
    return np.hstack([(chosen[:, [i]] == np.arange(size)).astype(np.float64) for i, size in enumerate(sizes)])


_FBNET_OPTIONS = ((3, 1, 1), (3, 1, 2), (3, 3, 1), (3, 6, 1), (5, 1, 1), (5, 1, 2), (5, 3, 1), (5, 6, 1), None)
_FBNET_STAGES = ((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))


def _fbnet_costs() -> list[list[tuple[float, ...]]]:
    """MACs, values moved, weights and operations of each option at each place, at 224 x 224."""
    places = []
    channels, size = 16, 112
    for width, blocks, first_stride in _FBNET_STAGES:
        for i in range(blocks):
            stride = first_stride if i == 0 else 1
            places.append([_fbnet_option(channels, width, size, stride, option) for option in _FBNET_OPTIONS])
            channels, size = width, size // stride
    return places


def _fbnet_option(
    channels: int, width: int, size: int, stride: int, option: tuple[int, int, int] | None
) -> tuple[float, ...]:
    if option is not None:
        shuffles = option[2] > 1
        return (*_inverted(channels, width, size, stride, option), 3.0 + shuffles)
    if stride == 1 and channels == width:
        return 0.0, 0.0, 0.0, 0.0
    out = size // stride
    weights = channels * width
    return weights * out**2, channels * size**2 + width * out**2, weights, 1.0


def _inverted(
    channels: int, width: int, size: int, stride: int, option: tuple[int, int, int]
) -> tuple[float, float, float]:
    """MACs, values moved and weights of an inverted residual block (kernel, expansion, groups)."""
    kernel, expand, groups = option
    out = size // stride
    hidden = channels * expand
    first, middle, last = channels * hidden / groups, hidden * kernel**2, hidden * width / groups
    macs = first * size**2 + (middle + last) * out**2
    moved = (channels + 2 * hidden) * size**2 + (2 * hidden + width) * out**2
    return macs, moved, first + middle + last


_OFA_STAGES = ((24, 2), (40, 2), (80, 2), (112, 1), (160, 2))


def _ofa_costs() -> list[list[tuple[float, float, float, float]]]:
    """MACs, values moved, weights and blocks (1 where there is one) of each option at each place, at 224 x 224."""
    places = []
    channels, size = 16, 112
    for width, first_stride in _OFA_STAGES:
        for i in range(4):
            stride = first_stride if i == 0 else 1
            options = [(0.0, 0.0, 0.0, 0.0)]
            options += [
                (*_inverted(channels, width, size, stride, (kernel, expand, 1)), 1.0)
                for kernel in (3, 5, 7)
                for expand in (3, 4, 6)
            ]
            places.append(options)
            channels, size = width, size // stride
    return places
