"""How a supernet is trained, as a configuration says it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)


class Plugin(BaseModel):
    """A file of a plugin folder by its name, and the options that it takes: `{ name = "sandwich", middle = 4 }`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Everything beside what this model knows."""
        return dict(self.model_extra or {})


class TermConfig(Plugin):
    """A criterion of a training's loss."""

    weight: NonNegativeFloat = 1.0
    ramp: float = Field(0.0, ge=0, le=1)  # share of the training over which the weight rises from nothing


class TrainingConfig(BaseModel):
    """How a supernet is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # uniform single path ranks best of all that was measured: docs/results.md
    sampler: Plugin = Plugin(name="uniform")  # a name, or a table of the name and its options
    criterion: tuple[TermConfig, ...] = (TermConfig(name="cross_entropy"),)  # one, or several that are added
    epochs: NonNegativeInt = 240  # none: the weights that the supernet begins with are good as they are
    batch: PositiveInt = 64
    learning_rate: PositiveFloat = 0.1
    warmup_epochs: NonNegativeInt = 2
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 1e-4  # of weights with two axes or more
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    gradient_norm: PositiveFloat = 5.0  # clipped to it
    largest_epochs: NonNegativeInt = 0  # the largest architecture alone comes first; then channels are sorted
    shift: NonNegativeInt = 1  # pixels of random translation, at the source's size
    trainable: Literal["all", "batch_norm"] = "all"  # batch_norm: convolutions stay random features (RF-DARTS)
    rates: dict[str, NonNegativeFloat] = {}  # of the learning rate, by the name that modules begin with; 0 freezes
    evaluate_every: PositiveInt = 10  # epochs
    seed: NonNegativeInt = 0

    @field_validator("sampler", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("criterion", mode="before")
    @classmethod
    def _terms(cls, value: object) -> object:
        terms = value if isinstance(value, (list, tuple)) else (value,)
        if not terms:
            raise ValueError("an empty list trains nothing: name one criterion at least")
        return tuple({"name": term} if isinstance(term, str) else term for term in terms)
