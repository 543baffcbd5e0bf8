"""The proxy role: what a network promises before anybody trains it. One file a proxy.

A file names its function `proxy`, and may say by `WEIGHTS` which weights it looks at: "fresh" (as it is), "inherited"
(of a trained supernet) or "none". Other packages add theirs by an entry point in the group "hwnas.engine.proxies".
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.engine.architecture import Architecture, FloatArray, IntArray, SearchSpace, to_architecture
from hwnas.engine.dataset import resize

Weights = Literal["fresh", "inherited", "none"]
SEEDS = (0, 1, 2)  # one initialisation tells one story
NOTHING = -1e12  # what a network promises whose score is not finite: it explodes


class Proxy(Protocol):
    """A score of one network, the larger the more it promises; finite for a network that ignores its input."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, rng: np.random.Generator) -> float:
        """Of a network that is its own (it may be changed), on images (n, c, h, w) and labels (n,).

        All chance comes from `rng`, which is the same for every network. Raises ValueError where the proxy makes no
        sense for this kind of network.
        """
        ...


def names() -> tuple[str, ...]:
    """Every proxy installed, sorted."""
    return plugin_names(sys.modules[__name__])


@dataclass(frozen=True)
class Score:
    """A proxy of a space's architectures on one batch, each computed once.

    Called it is a cost, minimised: minus the mean over the initialisations. So it is an objective, a covariate of any
    ranker, or, in `TrainingFree`, a ranker.
    """

    name: str
    proxy: Proxy
    weights: Weights
    space: SearchSpace
    images: Tensor  # (n, channels, height, width), resized to what an architecture takes
    labels: Tensor  # (n,)
    seeds: tuple[int, ...]  # one an initialisation
    supernet: nn.Module | None = None  # whose weights are inherited
    _known: dict[Architecture, tuple[float, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _fresh: dict[int, nn.Module] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, X: IntArray) -> FloatArray:
        """Costs of canonical rows (n, genes): (n,)."""
        costs: FloatArray = -self.each(X).mean(0)
        return costs

    def each(self, X: IntArray) -> FloatArray:
        """Scores of canonical rows, one line an initialisation, (initialisations, n); the larger the better."""
        rows = [to_architecture(row) for row in X]
        for row in dict.fromkeys(rows):
            if row not in self._known:
                self._known[row] = tuple(self._score(row, seed) for seed in self.seeds)
        return np.array([self._known[row] for row in rows], dtype=np.float64).reshape(len(rows), len(self.seeds)).T

    def _score(self, architecture: Architecture, seed: int) -> float:
        images = resize(self.images, self.space.input_shape(architecture)[-1])
        # the generator of the caller is left as it was
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self._network(architecture, seed)
            score = float(self.proxy(network, images, self.labels, rng=np.random.default_rng(seed)))
        return score if np.isfinite(score) else NOTHING

    def _network(self, architecture: Architecture, seed: int) -> nn.Module:
        supernet = self.supernet
        if self.weights != "inherited":
            if seed not in self._fresh:
                self._fresh[seed] = self.space.supernet()
            supernet = self._fresh[seed]
        assert supernet is not None
        network: nn.Module = supernet.subnet(architecture)  # type: ignore[operator]  # a Supernet is a Module
        if self.weights == "inherited":
            return network
        torch.manual_seed(seed)  # making the supernet has drawn too, the first time
        return initialised(network)


def make(
    name: str,
    space: SearchSpace,
    images: Tensor,
    labels: Tensor,
    *,
    seeds: Sequence[int] = SEEDS,
    supernet: nn.Module | None = None,
) -> Score:
    """The proxy called `name` of this space's architectures on one batch. Raises LookupError with the known names.

    Raises ValueError for a batch that does not fit, no seeds, and a proxy of inherited weights without a `supernet`.

    >>> score = make("zen", space, images, labels)  # doctest: +SKIP
    >>> TrainingFree(score).predict(X)  # doctest: +SKIP
    """
    found = load_plugin(sys.modules[__name__], name)
    proxy = cast(Proxy, getattr(found, "proxy", found))
    weights = cast(Weights, getattr(found, "WEIGHTS", "fresh"))
    if images.ndim != 4 or labels.shape != (len(images),) or len(images) < 2:
        raise ValueError(
            f"images {tuple(images.shape)} and labels {tuple(labels.shape)} are no batch: give two or more images, "
            "(n, channels, height, width), and (n,) labels"
        )
    if not seeds:
        raise ValueError("no seeds: give one an initialisation, three tell how far they agree")
    if weights == "inherited" and supernet is None:
        raise ValueError(f"{name} looks at inherited weights: give the trained supernet")
    return Score(
        name, proxy, weights, space, images, labels, tuple(seeds) if weights == "fresh" else (seeds[0],), supernet
    )


class TrainingFree:
    """A proxy as a ranker, whose fit does nothing.

    What it predicts is minus the score, in the score's own unit: its order is what counts. The doubt is the deviation
    over initialisations.
    """

    def __init__(self, score: Score) -> None:
        self._score = score

    def fit(self, X: IntArray, values: FloatArray) -> Self:  # noqa: ARG002
        """There is nothing to learn."""
        return self

    def predict(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean cost and deviation over the initialisations, each (n,)."""
        each = self._score.each(X)
        return -each.mean(0), each.std(0, ddof=1) if len(each) > 1 else np.zeros(len(X))

    def draw(self, X: IntArray, n: int, rng: np.random.Generator) -> FloatArray:
        """Initialisations drawn with replacement, whole ones: what networks share in one they share, (n, rows)."""
        each = self._score.each(X)
        return -each[rng.integers(len(each), size=n)]


def initialised(network: nn.Module) -> nn.Module:
    """The same module as new, by torch's global generator: a slice of a supernet's weights has another's scale.

    Convolutions as He et al. (2015) have them, by what goes out; every other module by its own `reset_parameters`.
    """
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return network
