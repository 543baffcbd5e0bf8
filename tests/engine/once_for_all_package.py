"""The networks of the `ofa` package, for comparison."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from hwnas.engine.spaces.mobilenet_v3.once_for_all_weights import _their_name
from hwnas.engine.spaces.mobilenet_v3.supernet import ElasticMobileNetV3


def their_supernet(width_mult: float = 1.0, classes: int = 1000) -> Any:
    """OFAMobileNetV3 as its checkpoints have it, with random weights, statistics and kernel transforms.

    The package reads images by modules that torch has lost and by torchvision; its networks need neither, so that
    part stays out. Skips where `ofa` is not installed.
    """
    sys.modules.setdefault("ofa.utils.my_dataloader", ModuleType("ofa.utils.my_dataloader"))
    networks = pytest.importorskip("ofa.imagenet_classification.elastic_nn.networks")
    torch.manual_seed(3)
    network = networks.OFAMobileNetV3(
        n_classes=classes,
        dropout_rate=0,
        width_mult=width_mult,
        ks_list=[3, 5, 7],
        expand_ratio_list=[3, 4, 6],
        depth_list=[2, 3, 4],
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            # with torch's own start the images are lost on the way, and any two networks agree
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    for name, parameter in network.named_parameters():
        if name.endswith("_matrix"):
            nn.init.normal_(parameter, std=len(parameter) ** -0.5)
    return network.eval()


def as_theirs(supernet: ElasticMobileNetV3) -> dict[str, torch.Tensor]:
    """The tensors of a supernet of ours under the names and in the shapes of the package, without the package."""
    tensors = {_their_name(name, supernet): tensor.clone() for name, tensor in supernet.state_dict().items()}
    return {
        name: tensor.T if name.endswith("_matrix") else tensor[..., None, None] if "feature_mix" in name else tensor
        for name, tensor in tensors.items()
    }


def pictures(n: int, resolution: int) -> torch.Tensor:
    """Random images (n, 3, resolution, resolution) that differ at large: to a network all noise is alike."""
    small = torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return 10 * nn.functional.interpolate(small, (resolution, resolution), mode="bilinear")
