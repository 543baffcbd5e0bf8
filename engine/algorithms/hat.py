"""The search under a limit on latency of HAT: 25 of 100 breed, three tenths of a mutant's genes are drawn anew."""

from __future__ import annotations

from functools import partial

from hwnas.engine.algorithms._best_parents import BestParents, Constants

# Wang et al., HAT: Hardware-Aware Transformers, ACL 2020: populations of 125, of which 25 are parents, 50 mutants and
# 50 crossings; the 100 that are new are a generation here.
algorithm = partial(BestParents, Constants(parents=0.25, resampled=0.3))
