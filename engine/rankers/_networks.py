"""Networks that score architectures: several members at once, each with weights of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.engine.architecture import FloatArray
from hwnas.engine.rankers._description import Description
from hwnas.engine.rankers._graph import Graph


class Linear(nn.Module):
    """A linear map a member: (members, ..., into) -> (members, ..., out)."""

    def __init__(self, members: int, into: int, out: int, rng: np.random.Generator, *, gain: float = 2.0) -> None:
        super().__init__()
        # He et al., "Delving deep into rectifiers", 2015
        weight = rng.normal(0, np.sqrt(gain / into), (members, into, out))
        self.weight = nn.Parameter(torch.from_numpy(weight).float())
        self.bias = nn.Parameter(torch.zeros(members, 1, out))

    def forward(self, columns: Tensor) -> Tensor:
        """Any number of dimensions between the first and the last."""
        mapped = torch.baddbmm(self.bias, columns.flatten(1, -2), self.weight)
        return mapped.reshape(*columns.shape[:-1], self.weight.shape[-1])


class Perceptron(nn.Module):
    """Two hidden layers on one-hot genes: (rows, columns) -> (members, rows, width)."""

    def __init__(self, members: int, columns: int, width: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.ModuleList([Linear(members, columns, width, rng), Linear(members, width, width, rng)])
        self._members = members

    def forward(self, columns: Tensor) -> Tensor:
        """Features of each row."""
        hidden = columns.expand(self._members, *columns.shape)
        for layer in self.layers:
            hidden = torch.relu(layer(hidden))
        return hidden


class GraphConvolution(nn.Module):
    """Rounds in which every node reads itself and the means of what leads to it and what it leads to.

    Kipf and Welling (ICLR 2017) with directions apart. (rows, columns) of one-hot genes -> (members, rows, features):
    the mean over the nodes beside every node's last state, since a cell has few and each has its place.
    """

    inward: Tensor
    outward: Tensor
    spread: Tensor

    def __init__(
        self, members: int, graph: Graph, spread: FloatArray, rng: np.random.Generator, *, width: int, rounds: int
    ) -> None:
        super().__init__()
        self._members, self._nodes = members, graph.nodes
        for name, matrix in (("inward", graph.inward), ("outward", graph.outward), ("spread", spread)):
            self.register_buffer(name, torch.from_numpy(matrix).float())
        into = spread.shape[1] // graph.nodes + graph.nodes
        sizes = [into, *[width] * rounds]
        self.layers = nn.ModuleList([Linear(members, 3 * sizes[i], width, rng) for i in range(rounds)])
        self.width = 2 * width
        self.last = Linear(members, graph.nodes * width, width, rng)

    def forward(self, columns: Tensor) -> Tensor:
        """Features of each row."""
        rows = len(columns)
        features = (columns @ self.spread).reshape(rows, self._nodes, -1)
        place = torch.eye(self._nodes).expand(rows, -1, -1)
        state = torch.cat([features, place], -1).expand(self._members, -1, -1, -1)
        for layer in self.layers:
            state = torch.relu(layer(torch.cat([state, self.inward @ state, self.outward @ state], -1)))
        own = torch.relu(self.last(state.flatten(2)))
        return torch.cat([state.mean(2), own], -1)


class Scorer(nn.Module):
    """Features and covariates to one or more scores a row."""

    def __init__(
        self, trunk: Perceptron | GraphConvolution, members: int, covariates: int, scores: int, rng: np.random.Generator
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.fuse = Linear(members, trunk.width + covariates, trunk.width, rng)
        # small, so that the first steps are about order and not about level
        self.heads = nn.ModuleList([Linear(members, trunk.width + covariates, 1, rng, gain=0.1) for _ in range(scores)])
        self._members = members

    def forward(self, columns: Tensor, covariates: Tensor) -> Tensor:
        """(scores, members, rows) of one-hot genes (rows, columns) and standardised covariates (rows, covariates)."""
        beside = covariates.expand(self._members, *covariates.shape)
        features = torch.relu(self.fuse(torch.cat([self.trunk(columns), beside], -1)))
        # beside the features once more: what goes along with the values in a straight line need not be learned as one
        features = torch.cat([features, beside], -1)
        return torch.stack([head(features).squeeze(-1) for head in self.heads])


def scorer(
    description: Description,
    graph: Graph | None,
    *,
    members: int,
    width: int,
    rounds: int,
    labels: Sequence[str],
    rng: np.random.Generator,
) -> Scorer:
    """A network with a head for each label: on one-hot genes, or on a graph of them."""
    columns = int(description.widths.sum())
    trunk: Perceptron | GraphConvolution
    if graph is None:
        trunk = Perceptron(members, columns, width, rng)
    else:
        trunk = GraphConvolution(members, graph, graph.spread(description), rng, width=width, rounds=rounds)
    return Scorer(trunk, members, len(description.covariates), len(labels), rng)
