"""Weights that Once-for-All has published for its MobileNetV3, for a supernet of the same layout.

The files are those of `ofa_mbv3_d234_e346_k357_w1.0` and `w1.2` (Cai et al., ICLR 2020): a state dict of
`OFAMobileNetV3`, alone or under "state_dict". The package has renamed its layers over time; all its names are read.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hwnas.engine.dataset import DataError
from hwnas.engine.spaces.mobilenet_v3.supernet import ElasticMobileNetV3

_CURE = "give a file of Once-for-All such as ofa_mbv3_d234_e346_k357_w1.0, and the space of its width_mult"

# ours -> theirs, without what later versions of the package repeat (conv.conv, bn.bn, linear.linear)
_LAYERS = {
    "stem.conv": "first_conv.conv",
    "stem.norm": "first_conv.bn",
    "head_conv": "final_expand_layer.conv",
    "head_norm": "final_expand_layer.bn",
    "mix": "feature_mix_layer.conv",
    "classify": "classifier.linear",
}
_BLOCK_LAYERS = {
    "expand": "inverted_bottleneck.conv",
    "expand_norm": "inverted_bottleneck.bn",
    "depthwise": "depth_conv.conv",
    "depthwise_norm": "depth_conv.bn",
    "se.reduce": "depth_conv.se.fc.reduce",
    "se.expand": "depth_conv.se.fc.expand",
    "project": "point_linear.conv",
    "project_norm": "point_linear.bn",
}
# a residual block holds one layer, of a name that tells nothing
_INNER = re.compile(r"^(blocks\.\d+)\.(?:mobile_inverted_conv|conv)\.")
_REPEATED = re.compile(r"\.(conv|bn|linear)\.\1\.")
_OURS = re.compile(r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\.(?P<layer>.+)\.(?P<tensor>\w+)")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names there; no code in the file is run. Raises DataError."""
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): {_CURE}") from error
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        # torch's own message advises to load without weights_only, which would run code of the file
        raise DataError(f"{path}: not a file of weights alone ({type(error).__name__}): {_CURE}") from error
    tensors = data.get("state_dict", data) if isinstance(data, Mapping) else None
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise DataError(f"{path}: holds no state dict: {_CURE}")
    return {str(name): tensor for name, tensor in tensors.items()}


@torch.no_grad()
def load_weights(supernet: ElasticMobileNetV3, tensors: Mapping[str, Tensor], *, source: str) -> bool:
    """Fill `supernet` with Once-for-All's tensors; whether the classifier is theirs too.

    The classifier stays as it is where the numbers of classes differ: the rest is then a start for other data.
    Everything else has to fit to the last tensor. Raises DataError that names `source` and the first misfit.
    """
    theirs = {_plain(name): tensor for name, tensor in tensors.items()}
    own = supernet.state_dict()
    names = {name: _their_name(name, supernet) for name in own}
    # older versions of torch did not count batches
    missing = [n for n in names.values() if n not in theirs and not n.endswith("num_batches_tracked")]
    if missing:
        raise DataError(f"{source}: {len(missing)} of {len(own)} tensors are not there, first {missing[0]!r}: {_CURE}")
    unused = sorted(set(theirs) - set(names.values()))
    if unused:
        raise DataError(f"{source}: {len(unused)} tensors have no place in this space, first {unused[0]!r}: {_CURE}")
    classifier = len(theirs["classifier.linear.bias"]) == len(own["classify.bias"])
    filled = {}
    for name, tensor in own.items():
        if names[name] not in theirs or (name.startswith("classify.") and not classifier):
            continue
        value = theirs[names[name]]
        if "transforms" in name:
            value = value.T  # they multiply from the left
        elif name == "mix.weight":
            value = value.flatten(1)  # a 1x1 convolution of one pixel
        if value.shape != tensor.shape:
            raise DataError(
                f"{source}: {names[name]!r} has the shape {tuple(value.shape)}, in this space {tuple(tensor.shape)}: "
                f"{_CURE}"
            )
        filled[name] = value
    supernet.load_state_dict({**own, **filled})
    return classifier


def _plain(name: str) -> str:
    """A name there, the same for every version of the package."""
    return _REPEATED.sub(r".\1.", _INNER.sub(r"\1.", name))


def _their_name(name: str, supernet: ElasticMobileNetV3) -> str:
    """What `_plain` makes of the name that Once-for-All gives to a tensor of ours."""
    found = _OURS.fullmatch(name)
    if found is None:
        layer, _, tensor = name.rpartition(".")
        return f"{_LAYERS[layer]}.{tensor}"
    stages = supernet.space.config.stages
    stage, block = int(found["stage"]), int(found["block"])
    number = sum(s.depths[-1] for s in stages[:stage]) + block
    layer, tensor = found["layer"], found["tensor"]
    if layer == "depthwise.transforms":
        kernels, small = stages[stage].kernels, int(tensor.removeprefix("to_"))
        layer, tensor = "depthwise", f"{kernels[kernels.index(small) + 1]}to{small}_matrix"
    return f"blocks.{number}.{_BLOCK_LAYERS[layer]}.{tensor}"
