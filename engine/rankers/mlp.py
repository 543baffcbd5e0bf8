"""Six small perceptrons that saw other rows, all trained in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.rankers._ensemble import Predict, bagged

WIDTH, STEPS = 64, 200
LEARNING_RATE, WEIGHT_DECAY = 0.01, 1e-3
# enough for small data sets; beyond it a step costs more than it teaches
ROWS_A_STEP = 256


def _learn(columns: FloatArray, target: FloatArray, counts: IntArray, rng: np.random.Generator) -> Predict:
    """Two hidden layers, each member from other weights.

    Adam with weight decay and a rate that falls to zero, on squared errors weighted by the bootstrap.
    """
    centre, scale = columns.mean(0), np.where(columns.std(0) > 0, columns.std(0), np.inf)

    def scaled(columns: FloatArray) -> Tensor:
        return torch.from_numpy((columns - centre) / scale).float()

    rows, inputs = len(columns), scaled(columns)
    layers = _initial(len(counts), inputs.shape[1], rng)
    parameters = [tensor.requires_grad_() for layer in layers for tensor in layer]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    y, weights = torch.from_numpy(target).float(), torch.from_numpy(counts).float()
    for _ in range(STEPS):
        batch = torch.arange(rows)
        if rows > ROWS_A_STEP:
            batch = torch.from_numpy(rng.choice(rows, ROWS_A_STEP, replace=False))
        loss = (weights[:, batch] * (_forward(layers, inputs[batch]) - y[batch]) ** 2).mean(1).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships it without types
        optimiser.step()
        schedule.step()

    def predict(columns: FloatArray) -> FloatArray:
        with torch.no_grad():
            return _forward(layers, scaled(columns)).double().numpy()

    return predict


def _initial(members: int, columns: int, rng: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
    """He et al., "Delving deep into rectifiers", 2015; the last layer starts small."""
    layers = []
    for i, (into, out) in enumerate(pairwise((columns, WIDTH, WIDTH, 1))):
        deviation = np.sqrt((2.0 if i < 2 else 0.1) / into)
        weight = torch.from_numpy(rng.normal(0, deviation, (members, into, out))).float()
        layers.append((weight, torch.zeros(members, 1, out)))
    return layers


def _forward(layers: Sequence[tuple[Tensor, Tensor]], columns: Tensor) -> Tensor:
    hidden = columns.expand(len(layers[0][0]), -1, -1)
    for weight, bias in layers[:-1]:
        hidden = torch.relu(torch.baddbmm(bias, hidden, weight))
    weight, bias = layers[-1]
    return torch.baddbmm(bias, hidden, weight).squeeze(-1)


ranker = bagged(_learn)
