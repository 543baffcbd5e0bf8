"""Networks that learn an order, with doubt from members that saw other rows, and a start from cheaper labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.objective import Costs
from hwnas.engine.rankers._description import Description, Warp, checked
from hwnas.engine.rankers._ensemble import Spread, bootstrap, spread_factor
from hwnas.engine.rankers._graph import Graph
from hwnas.engine.rankers._losses import Loss
from hwnas.engine.rankers._networks import Scorer, scorer

MEMBERS, WIDTH, ROUNDS, STEPS = 4, 32, 3, 150
LEARNING_RATE, WEIGHT_DECAY = 0.005, 5e-4  # of AceNAS
PRETRAINING_STEPS, PRETRAINING_RATE = 300, 0.003
# pairs grow with the square of a list
ROWS_A_LIST = 256
LEAST_SLOPE = 0.05  # of standardised values over standardised scores: what has learned nothing keeps its order


class Neural:
    """An ensemble of networks whose loss, encoding and start are chosen; the order is what they learn.

    Scores have a scale of their own. `predict` brings them to values by a straight line through the scores of rows
    that a member did not see, which keeps the order; `score` gives them as they are.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        *,
        rng: np.random.Generator,
        loss: Loss,
        covariates: Sequence[Costs] = (),
        graph: Graph | None = None,
        members: int = MEMBERS,
        width: int = WIDTH,
        rounds: int = ROUNDS,
        steps: int = STEPS,
        rows_a_list: int = ROWS_A_LIST,
    ) -> None:
        if members < 2 or rows_a_list < 2:
            raise ValueError(
                f"{members} members and lists of {rows_a_list}: doubt needs two members, an order two rows"
            )
        self._description = Description.of(genes, covariates)
        self._rng, self._loss, self._graph = rng, loss, graph
        self._members, self._width, self._rounds = members, width, rounds
        self._steps, self._rows_a_list = steps, rows_a_list
        self._started: Scorer | None = None  # with what was pretrained
        self._network: Scorer | None = None

    def pretrain(self, X: IntArray, labels: Mapping[str, FloatArray]) -> Self:
        """Learn labels that are cheap (n,) each of canonical rows (n, genes): the start of every later fit.

        The first label is to be a stand-in for the values that will be fitted, minimised as they are (1 - accuracy of a
        supernet, minus the MACs): its head is kept; the others only shape what the heads read. Squared errors of
        standardised labels, summed (Zhang et al., arXiv 2108.03001). Raises ValueError.
        """
        if not labels:
            raise ValueError("no labels to learn from: give at least one, by name")
        columns = [checked(X, values, self._description) for values in labels.values()]
        X = columns[0][0]
        self._standardise(X)
        targets = torch.stack([torch.from_numpy(_standard(-values)).float() for _, values in columns])
        network = self._new(tuple(labels))
        inputs = self._inputs(X)
        optimiser = torch.optim.AdamW(network.parameters(), lr=PRETRAINING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, PRETRAINING_STEPS)
        for _ in range(PRETRAINING_STEPS):
            batch = self._list(len(X))
            scores = network(*(part[batch] for part in inputs))
            loss = ((scores - targets[:, None, batch]) ** 2).mean(2).sum()
            _step(optimiser, schedule, loss)
        network.heads = network.heads[:1]
        self._started = network
        return self

    def with_loss(self, loss: Loss) -> Neural:
        """Another ranker that begins where this one does, and goes on by another loss and draws of its own."""
        other = copy.deepcopy(self)
        other._loss = loss
        return other

    def fit(self, X: IntArray, values: FloatArray) -> Self:
        """Adam with weight decay and a rate that falls to zero; every member on a bootstrap of the rows."""
        X, values = checked(X, values, self._description)
        self._warp = Warp.of(values)
        target = self._warp(values)
        if self._started is None:
            self._standardise(X)
            network = self._new(("values",))
        else:
            network = copy.deepcopy(self._started)
        inputs = self._inputs(X)
        counts = bootstrap(len(X), self._members, self._rng)
        compared, weights = torch.from_numpy(self._loss.targets(-target)).float(), torch.from_numpy(counts).float()
        optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self._steps)
        for _ in range(self._steps):
            batch = self._list(len(X))
            scores = network(*(part[batch] for part in inputs))[0]
            _step(optimiser, schedule, self._loss(scores, compared[batch], weights[:, batch]))
        self._network = network
        scores = self._scores(X)
        self._level, spread = scores.mean(1, keepdims=True), scores.std(1, keepdims=True)
        self._scale = np.where(spread > 0, spread, np.inf)
        self._line(target, counts, (scores - self._level) / self._scale)
        return self

    def score(self, X: IntArray) -> FloatArray:
        """Mean score of the members, (n,); larger is better, on no scale. Raises RuntimeError before a fit."""
        mean: FloatArray = self._standard_scores(X).mean(0)
        return mean

    def predict(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation, each (n,)."""
        return self._warp_of().moments(*self._spread(X).moments())

    def draw(self, X: IntArray, n: int, rng: np.random.Generator) -> FloatArray:
        """Joint draws, (n, rows)."""
        return self._warp_of().inverse(self._spread(X).draw(n, rng))

    # ---- from scores to values --------------------------------------------------------------------------------------

    def _line(self, target: FloatArray, counts: IntArray, scores: FloatArray) -> None:
        """The straight line from standardised scores (members, rows) to the target (rows,), and how far to trust it."""
        unseen = (counts == 0).astype(np.float64)
        unseen[:, unseen.sum(0) == 0] = 1  # every member saw it: then all speak
        honest = (unseen * scores).sum(0) / unseen.sum(0)
        away = honest - honest.mean()
        slope = -float(away @ target) / max(float(away @ away), 1e-12)
        self._slope = max(slope, LEAST_SLOPE * float(target.std()))
        self._offset = float(target.mean() + self._slope * honest.mean())
        self._factor = spread_factor(self._offset - self._slope * scores, target, counts)

    def _spread(self, X: IntArray) -> Spread:
        return Spread(self._offset - self._slope * self._standard_scores(X), self._factor)

    def _standard_scores(self, X: IntArray) -> FloatArray:
        self._warp_of()
        standard: FloatArray = (self._scores(X) - self._level) / self._scale
        return standard

    def _scores(self, X: IntArray) -> FloatArray:
        """Scores as the network gives them, (members, n)."""
        assert self._network is not None
        with torch.no_grad():
            scores: FloatArray = self._network(*self._inputs(X))[0].double().numpy()
        return scores

    def _warp_of(self) -> Warp:
        if self._network is None:
            raise RuntimeError("this ranker has learned nothing yet: call fit first")
        return self._warp

    # ---- what the network reads -------------------------------------------------------------------------------------

    def _standardise(self, X: IntArray) -> None:
        costs = self._description.costs(X)
        self._centre, self._unit = costs.mean(0), np.where(costs.std(0) > 0, costs.std(0), np.inf)

    def _inputs(self, X: IntArray) -> tuple[Tensor, Tensor]:
        costs = (self._description.costs(X) - self._centre) / self._unit
        return torch.from_numpy(self._description.indicators(X)).float(), torch.from_numpy(costs).float()

    def _list(self, n: int) -> Tensor:
        """Rows of one step: all, or a list of them drawn without replacement."""
        if n <= self._rows_a_list:
            return torch.arange(n)
        return torch.from_numpy(self._rng.choice(n, self._rows_a_list, replace=False))

    def _new(self, labels: Sequence[str]) -> Scorer:
        return scorer(
            self._description,
            self._graph,
            members=self._members,
            width=self._width,
            rounds=self._rounds,
            labels=labels,
            rng=self._rng,
        )


def _step(optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch ships it without types
    optimiser.step()
    schedule.step()


def _standard(values: FloatArray) -> FloatArray:
    standard: FloatArray = (values - values.mean()) / (values.std() or 1.0)
    return standard
