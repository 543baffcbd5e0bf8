"""Which architectures train at a step: one file a sampler, each with a pydantic `Config` and
`build(config, genes, *, seed, prior) -> Sampler`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from hwnas.devices.plugins import load_plugin
from hwnas.engine.architecture import Architecture, Gene
from hwnas.engine.objective import Costs

Prior = Callable[[str], Costs]  # what canonical rows (n, genes) promise, (n,), by name: "macs" or a proxy's
PathRole = Literal["largest", "smallest", "random", "pair"]  # two pairs in a row are compared with each other


@dataclass(frozen=True, slots=True)
class TrainingPath:
    """One architecture of a step; the step's loss is the weighted sum over its paths."""

    architecture: Architecture
    role: PathRole
    weight: float = 1.0


class Sampler(Protocol):
    """Draws follow from the seed, the step and `state()` alone.

    So a resumed training draws what an unbroken one draws, and so do all ranks of a distributed one. Most samplers
    have no state: what they draw is a function of the step.
    """

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """The architectures of a step, in the order in which they are computed; asked for one step after another."""
        ...

    def frozen(self, step: int) -> tuple[str, ...]:
        """Blocks whose weights stand still at a step: `s1` is every module called `s1` or `s1_...`."""
        del step
        return ()

    def state(self) -> dict[str, Any]:
        """What later draws depend on beside the step, fit for JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state()`. Raises ValueError for one of another space."""
        del state


class Build(Protocol):
    """How every sampler is made."""

    def __call__(self, config: Any, genes: Sequence[Gene], *, seed: int, prior: Prior) -> Sampler:
        """`prior("macs")` are the MACs of rows; other names are proxies', the larger the more a row promises."""
        ...


def make(name: str, options: Mapping[str, Any], genes: Sequence[Gene], *, seed: int, prior: Prior) -> Sampler:
    """The sampler called `name`. Raises LookupError with the known names, ValueError for options it does not take."""
    plugin = load_plugin(sys.modules[__name__], name)
    return cast(Build, plugin.build)(plugin.Config.model_validate(options), genes, seed=seed, prior=prior)
