"""Several architectures a step that share no option, by Gumbel top-k from a policy (MSG-DAS, Tan et al., 2021)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt

from hwnas.engine.architecture import FloatArray, Gene, IntArray, canonical, to_architecture
from hwnas.engine.policy import CategoricalPolicy
from hwnas.engine.training.samplers import Prior, Sampler, TrainingPath


class Config(BaseModel):
    """How many architectures a step, and what they are drawn from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: PositiveInt = 2  # architectures a step
    policy: Path | None = None  # a policy's JSON; all options alike if not given


@dataclass(frozen=True)
class GumbelTopK(Sampler):
    """`paths` architectures a step, each weighing 1 / paths, that differ in every gene as far as its options reach.

    A gene of fewer options than paths begins anew behind its last; genes that are off hold 0 in any of them. Draws are
    a function of the seed and the step alone.
    """

    policy: CategoricalPolicy
    seed: int
    count: int

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """See Sampler."""
        rows = ranked(self.policy, self.count, np.random.default_rng([self.seed, step]))
        return tuple(TrainingPath(to_architecture(row), "random", 1 / self.count) for row in rows)


def ranked(policy: CategoricalPolicy, k: int, rng: np.random.Generator) -> IntArray:
    """`k` canonical rows drawn without replacement gene by gene, (k, genes): one Gumbel variable an option, ranked.

    The ordered options of a gene follow Plackett and Luce: p_i p_j / (1 - p_i) for the first two (Yellott, 1977).
    """
    table = policy.table
    with np.errstate(divide="ignore"):  # an option that cannot be drawn scores minus infinity
        scores: FloatArray = np.log(table) + rng.gumbel(size=table.shape)
    order = np.argsort(-scores, axis=1, kind="stable")
    counts = (table > 0).sum(1)
    places = np.arange(k)[:, None] % counts
    return canonical(policy.genes, order[np.arange(len(counts)), places])


def build(config: Config, genes: Sequence[Gene], *, seed: int, prior: Prior) -> GumbelTopK:
    """The sampler for a space's genes. Raises ValueError for a policy that is not one of theirs."""
    del prior
    policy = CategoricalPolicy.uniform(genes) if config.policy is None else _read(config.policy, genes)
    return GumbelTopK(policy, seed, config.paths)


def _read(path: Path, genes: Sequence[Gene]) -> CategoricalPolicy:
    try:
        return CategoricalPolicy.from_json(genes, json.loads(path.read_text()))
    except OSError as error:
        raise ValueError(f"{path}: no policy can be read ({error.strerror}): give the JSON file of one") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
