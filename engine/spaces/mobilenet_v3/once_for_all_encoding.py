"""Architectures as Once-for-All writes them, {"ks": [...], "e": [...], "d": [...], "r": [...]}, and back.

`ks` and `e` hold the kernel and the expansion of every place for a block, stage after stage, whether it is used or
not; `d` how many of its places each stage uses; `r` the resolution (Cai et al., ICLR 2020; `set_active_subnet` and the
accuracy predictors of the `ofa` package). A first stage without choices is fixed there and not written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture
from hwnas.engine.spaces.mobilenet_v3.space import Config, MobileNetV3Space, Stage
from hwnas.latency.block import Value

Number = int | float


def to_encoding(space: MobileNetV3Space, architecture: Architecture) -> dict[str, list[Number]]:
    """What Once-for-All calls `architecture`; places that are not used hold the smallest options. Raises ValueError."""
    values = arch.options(space.genes, arch.check(space.genes, architecture))
    stages = _stages(space.config)
    places = [(s, b) for s, stage in stages for b in range(1, stage.depths[-1] + 1)]
    return {
        "ks": [_number(values[f"s{s}.b{b}.kernel"]) for s, b in places],
        "e": [_number(values[f"s{s}.b{b}.expansion"]) for s, b in places],
        "d": [_number(values[f"s{s}.depth"]) for s, _ in stages],
        "r": [_number(values["resolution"])],
    }


def from_encoding(space: MobileNetV3Space, encoding: Mapping[str, Any]) -> Architecture:
    """The architecture that Once-for-All calls so; what stands in places that are not used does not matter.

    A single number instead of a list holds for every place, as there. `r` may be left out where the space has one
    resolution. Raises ValueError that names the entry.
    """
    unknown = sorted(set(encoding) - {"ks", "e", "d", "r", "wid"})
    if unknown:
        raise ValueError(f"an encoding has no {unknown[0]!r}: give ks, e, d and r")
    if encoding.get("wid") is not None:  # written as None by the package where the width is not elastic
        raise ValueError(
            f"wid is {encoding['wid']!r}: widths are not elastic here, build the space of another width_mult"
        )
    stages = _stages(space.config)
    depths = _values(encoding, "d", len(stages), "stages")
    places = sum(stage.depths[-1] for _, stage in stages)
    kernels, expansions = (_values(encoding, key, places, "places for a block") for key in ("ks", "e"))
    resolutions = space.config.resolutions
    resolution = _values(encoding, "r", 1, "resolution") if "r" in encoding or len(resolutions) > 1 else resolutions
    chosen = {"resolution": _option("r", resolution[0], resolutions)}
    for s, stage in enumerate(space.config.stages, 1):
        chosen |= {f"s{s}.depth": stage.depths[0], f"s{s}.width": stage.widths[0]}
        if (s, stage) not in stages:  # the fixed first stage
            chosen |= {f"s{s}.b1.kernel": stage.kernels[0], f"s{s}.b1.expansion": stage.expansions[0]}
    place = 0
    for i, (s, stage) in enumerate(stages):
        depth = _option(f"d[{i}]", depths[i], stage.depths)
        chosen[f"s{s}.depth"] = depth
        for b in range(1, int(depth) + 1):
            at = place + b - 1
            chosen[f"s{s}.b{b}.kernel"] = _option(f"ks[{at}]", kernels[at], stage.kernels)
            chosen[f"s{s}.b{b}.expansion"] = _option(f"e[{at}]", expansions[at], stage.expansions)
        place += stage.depths[-1]
    return arch.check(space.genes, arch.from_json(space.genes, chosen))


def _stages(config: Config) -> list[tuple[int, Stage]]:
    """The stages that an encoding speaks of, with their numbers from 1 on. Raises ValueError for an elastic width."""
    numbered = list(enumerate(config.stages, 1))
    for s, stage in numbered:
        if len(stage.widths) > 1:
            raise ValueError(f"stage {s} has the widths {stage.widths}: Once-for-All writes none, give it one")
    first = config.stages[0]
    fixed = first.depths == (1,) and len(first.kernels) == len(first.expansions) == 1
    return numbered[1:] if fixed else numbered


def _values(encoding: Mapping[str, Any], key: str, count: int, what: str) -> list[Any]:
    if key not in encoding:
        raise ValueError(f"{key} is missing: give {count} values, one for each of the {what}")
    value = encoding[key]
    if not isinstance(value, Sequence) or isinstance(value, str):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{key} has {len(value)} values, this space has {count} {what}: give one for each")
    return list(value)


def _option(name: str, value: Any, options: tuple[Number, ...]) -> Number:
    if value not in options:
        raise ValueError(f"{name} is {value!r}: choose from {', '.join(f'{option:g}' for option in options)}")
    return options[options.index(value)]


def _number(value: Value) -> Number:
    number = float(value)
    return int(number) if number.is_integer() else number
