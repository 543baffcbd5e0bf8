"""A small ensemble of perceptrons, all trained in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from torch import Tensor

from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.objective import Costs
from hwnas.engine.rankers._description import Description, Warp, checked
from hwnas.engine.rankers._ensemble import Spread, bootstrap, spread_factor

MEMBERS, WIDTH, STEPS = 6, 64, 200
LEARNING_RATE, WEIGHT_DECAY = 0.01, 1e-3
# enough for small data sets; beyond it a step costs more than it teaches
ROWS_A_STEP = 256


class Mlp:
    """Six networks of two hidden layers, each from other weights on another bootstrap."""

    def __init__(self, genes: Sequence[Gene], *, rng: np.random.Generator, covariates: Sequence[Costs] = ()) -> None:
        self._description = Description.of(genes, covariates)
        self._rng = rng
        self._layers: list[tuple[Tensor, Tensor]] = []

    def fit(self, X: IntArray, values: FloatArray) -> Self:
        """Adam with weight decay and a rate that falls to zero, on squared errors weighted by the bootstrap."""
        X, values = checked(X, values, self._description)
        self._warp = Warp.of(values)
        target = self._warp(values)
        raw = self._raw(X)
        self._centre, self._scale = raw.mean(0), np.where(raw.std(0) > 0, raw.std(0), np.inf)
        columns = self._columns(X)
        counts = bootstrap(len(X), MEMBERS, self._rng)
        self._layers = self._initial(columns.shape[1])
        parameters = [tensor.requires_grad_() for layer in self._layers for tensor in layer]
        optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        y, weights = torch.from_numpy(target).float(), torch.from_numpy(counts).float()
        for _ in range(STEPS):
            batch = torch.arange(len(X))
            if len(X) > ROWS_A_STEP:
                batch = torch.from_numpy(self._rng.choice(len(X), ROWS_A_STEP, replace=False))
            loss = (weights[:, batch] * (_forward(self._layers, columns[batch]) - y[batch]) ** 2).mean(1).sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch ships it without types
            optimiser.step()
            schedule.step()
        self._layers = [(weight.detach(), bias.detach()) for weight, bias in self._layers]
        self._factor = spread_factor(self._predicted(columns), target, counts)
        return self

    def predict(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation, each (n,)."""
        spread = self._spread(X)
        return self._warp.moments(*spread.moments())

    def draw(self, X: IntArray, n: int, rng: np.random.Generator) -> FloatArray:
        """Joint draws, (n, rows)."""
        spread = self._spread(X)
        return self._warp.inverse(spread.draw(n, rng))

    def _spread(self, X: IntArray) -> Spread:
        if not self._layers:
            raise RuntimeError("this ranker has learned nothing yet: call fit first")
        return Spread(self._predicted(self._columns(X)), self._factor)

    def _predicted(self, columns: Tensor) -> FloatArray:
        with torch.no_grad():
            return _forward(self._layers, columns).double().numpy()

    def _raw(self, X: IntArray) -> FloatArray:
        return self._description.columns(X)

    def _columns(self, X: IntArray) -> Tensor:
        return torch.from_numpy((self._raw(X) - self._centre) / self._scale).float()

    def _initial(self, columns: int) -> list[tuple[Tensor, Tensor]]:
        """He et al., "Delving deep into rectifiers", 2015; the last layer starts small."""
        sizes = (columns, WIDTH, WIDTH, 1)
        layers = []
        for i, (into, out) in enumerate(pairwise(sizes)):
            deviation = np.sqrt((2.0 if i < 2 else 0.1) / into)
            weight = torch.from_numpy(self._rng.normal(0, deviation, (MEMBERS, into, out))).float()
            layers.append((weight, torch.zeros(MEMBERS, 1, out)))
        return layers


def _forward(layers: Sequence[tuple[Tensor, Tensor]], columns: Tensor) -> Tensor:
    hidden = columns.expand(len(layers[0][0]), -1, -1)
    for weight, bias in layers[:-1]:
        hidden = torch.relu(torch.baddbmm(bias, hidden, weight))
    weight, bias = layers[-1]
    return torch.baddbmm(bias, hidden, weight).squeeze(-1)


ranker = Mlp
