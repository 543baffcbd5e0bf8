"""SMS-EMOA: who adds least hypervolume leaves."""

from __future__ import annotations

from typing import Any

from pymoo.algorithms.moo.sms import SMSEMOA
from pymoo.algorithms.soo.nonconvex.ga import GA

from hwnas.engine.algorithms._pymoo import through_pymoo


def _build(objectives: int, population: int) -> Any:
    """SMS-EMOA (Beume, Naujoks, Emmerich, EJOR 181(3), 2007), a whole population of offspring at a time.

    Time grows steeply with the objectives: every row that leaves asks for all contributions anew. With one objective
    the hypervolume is that objective, and this is `ga`.
    """
    return SMSEMOA(pop_size=population) if objectives > 1 else GA(pop_size=population)


algorithm = through_pymoo(_build)
