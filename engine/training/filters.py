"""What of a network trains and how fast: rules over its parameters, and the optimiser's groups that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Matches = Callable[[str, nn.Module, nn.Parameter], bool]  # name in the network, module that owns it, parameter


@dataclass(frozen=True, slots=True)
class TrainableFilter:
    """Parameters that `matches` train at `rate` times the learning rate; 0 freezes them.

    Of several filters the first that matches decides; what none matches trains at the full rate. `name` is what an
    error calls it.
    """

    name: str
    matches: Matches
    rate: float = 0.0

    def __post_init__(self) -> None:
        if not self.rate >= 0:
            raise ValueError(f"{self.name}: a rate of {self.rate} times the learning rate: give 0 to freeze, or more")


def batch_norm_only(*, train_classifier: bool = False, classifier: str = "classify") -> tuple[TrainableFilter, ...]:
    """Scale and shift of every BatchNorm alone train; convolutions stay the random features that they begin as.

    `train_classifier` trains the module called `classifier` too. Source: Zhang et al., RF-DARTS, CVPR 2023; whether
    the classifier trains is left open there, so it is a choice here.
    """
    rest = TrainableFilter("all but BatchNorm", lambda _name, module, _parameter: not isinstance(module, _BatchNorm))
    if not train_classifier:
        return (rest,)

    def is_classifier(name: str, module: nn.Module, parameter: nn.Parameter) -> bool:
        del module, parameter
        return classifier in name.split(".")[:-1]

    return TrainableFilter(f"classifier {classifier!r}", is_classifier, 1.0), rest


def frozen(*prefixes: str) -> tuple[TrainableFilter, ...]:
    """The blocks whose names begin so, in whole words between dots, do not train."""
    return tuple(rated(prefix, 0.0) for prefix in prefixes)


def rated(prefix: str, rate: float) -> TrainableFilter:
    """The block of that name trains at `rate` times the learning rate."""
    return TrainableFilter(
        f"block {prefix!r}", lambda name, _module, _parameter: f"{name}.".startswith(f"{prefix}."), rate
    )


def groups(
    network: nn.Module, filters: Sequence[TrainableFilter] = (), *, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Groups for an optimiser, one a rate and decay; each has `params`, `names`, `weight_decay` and `rate`.

    The one who sets the learning rate multiplies it by a group's `rate`. Frozen parameters take no gradient and are
    in no group: momentum and decay would move them still. Others are set to take one. Tensors of fewer than two axes
    do not decay. A tensor of several names is in one group, at the slowest of their rates. Raises ValueError where
    nothing is left to train, or for a filter that matches nothing.
    """
    rates: dict[nn.Parameter, float] = {}
    names: dict[nn.Parameter, str] = {}
    unused = dict.fromkeys(rule.name for rule in filters)
    for prefix, module in network.named_modules(remove_duplicate=False):
        for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{prefix}.{own}".lstrip(".")
            matching = [rule for rule in filters if rule.matches(name, module, parameter)]
            for rule in matching:
                unused.pop(rule.name, None)
            rate = matching[0].rate if matching else 1.0
            names.setdefault(parameter, name)
            rates[parameter] = min(rate, rates.get(parameter, rate))
    if unused:
        known = ", ".join(name for name, _ in network.named_children())
        raise ValueError(f"no parameter belongs to {next(iter(unused))}: correct the name (at the top: {known})")
    found: dict[tuple[float, float], dict[str, Any]] = {}
    for parameter, rate in rates.items():
        parameter.requires_grad_(rate > 0)
        if rate > 0:
            decay = weight_decay if parameter.dim() > 1 else 0.0
            group = found.setdefault((rate, decay), {"params": [], "names": [], "weight_decay": decay, "rate": rate})
            group["params"].append(parameter)
            group["names"].append(names[parameter])
    if not found:
        cure = "let BatchNorm scale and shift (affine), or freeze less"
        raise ValueError(f"nothing is left to train of {len(rates)} parameters: {cure}")
    return list(found.values())
