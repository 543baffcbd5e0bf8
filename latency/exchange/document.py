"""A whole latency table as plain values: what Parquet and JSON files hold, checked to the last field when read."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from hwnas.devices import Device, Fingerprint, Measurement, Protocol
from hwnas.latency.block import Block
from hwnas.latency.rows import NetworkRole, Quoted, Verdict, compact, network_key

# Raised with every change that an older reader would misread.
LAYOUT: Final = 1
FORMAT: Final = "hwnas latency table"


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _BlockEntry(_Plain):
    factory: str
    kwargs: dict[str, bool | int | float | str]
    inputs: tuple[tuple[Annotated[int, Field(ge=1)], ...], ...]
    dtype: str


def _block(data: Any) -> Block:
    return data if isinstance(data, Block) else Block.from_json(_BlockEntry.model_validate(data).model_dump())


def _without_identity(data: Any) -> Any:
    return {name: value for name, value in data.items() if name != "identity"} if isinstance(data, dict) else data


# its identity follows from the rest
_Fingerprint = Annotated[Fingerprint, BeforeValidator(_without_identity)]
_Block = Annotated[Block, BeforeValidator(_block), PlainSerializer(Block.to_json)]


class VisitEntry(_Plain):
    """One visit to the device."""

    uid: str
    fingerprint: _Fingerprint
    fingerprint_after: _Fingerprint | None = None
    protocol: Protocol
    speed: float | None = Field(default=None, gt=0)
    added_at: str


class CheckEntry(_Plain):
    """One drift check."""

    uid: str
    created_at: str
    fingerprint: _Fingerprint
    speed: float
    low: float
    high: float
    sentinels: int
    verdict: Verdict
    accepted: bool


class RowEntry(_Plain):
    """One block, network or anchor: exactly one of runs, error and quoted latency."""

    kind: Literal["block", "network", "anchor"]
    visit: int = Field(ge=0)  # which of the document's visits it was measured in
    key: str
    label: str | None = None
    role: NetworkRole | None = None
    blocks: tuple[_Block, ...] = ()  # one of a block, all of a network, none of an anchor
    runs_ms: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    drift: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    energy_mj: float | None = None
    error: str | None = None
    quoted: Quoted | None = None
    measured_at: str
    artefact: str | None = None
    compile_cpu_s: float | None = None
    superseded_at: str | None = None

    @model_validator(mode="after")
    def _is_what_it_says(self) -> RowEntry:
        keys = {"block": self.blocks[0].key if len(self.blocks) == 1 else "", "network": network_key(self.blocks)}
        if keys.get(self.kind, self.key) != self.key:
            raise ValueError(f"{self.kind} {self.key} is not made of the blocks that it lists")
        if sum(result is not None for result in (self.runs_ms, self.error, self.quoted)) != 1:
            raise ValueError(f"{self.kind} {self.key} needs exactly one of runs, an error and a quoted latency")
        if self.kind == "anchor" and (self.runs_ms is None or self.superseded_at is not None):
            raise ValueError(f"anchor {self.key} needs runs, and always counts")
        if {self.label is None, self.role is None} != {self.kind != "network"}:
            raise ValueError(f"{self.kind} {self.key}: networks have a label and a role, nothing else has")
        return self


class Document(_Plain):
    """A table with everything in it."""

    format: Literal["hwnas latency table"] = FORMAT
    layout: Literal[1] = LAYOUT
    uid: str
    device: Device
    fingerprint: _Fingerprint
    protocol: Protocol
    created_at: str
    visits: tuple[VisitEntry, ...]
    checks: tuple[CheckEntry, ...] = ()
    rows: tuple[RowEntry, ...]

    @model_validator(mode="after")
    def _holds_together(self) -> Document:
        for row in self.rows:
            if row.visit >= len(self.visits):
                raise ValueError(f"{row.kind} {row.key} is of visit {row.visit}, and there are {len(self.visits)}")
            if row.runs_ms is not None:
                # its own rules: some runs, and rounds of equal length
                Measurement(row.runs_ms, self.visits[row.visit].protocol, row.measured_at, row.drift or ())
        return self


def sealed(document: Document) -> dict[str, Any]:
    """The document as plain JSON values, with a checksum of all of them."""
    data = document.model_dump(mode="json", exclude_none=True)
    return {**data, "sha256": _checksum(data)}


def unsealed(data: Any) -> Document:
    """The document that `sealed` wrote. Raises ValueError in one line where it is another, changed or damaged."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"it does not say that it is a {FORMAT}")
    if data.get("layout") != LAYOUT:
        raise ValueError(f"it has layout {data.get('layout')} and this hwnas reads layout {LAYOUT}")
    content = {name: value for name, value in data.items() if name != "sha256"}
    try:
        same = data.get("sha256") == _checksum(content)
    except TypeError as error:  # bytes of a damaged Parquet file
        raise ValueError(str(error)) from None
    if not same:
        raise ValueError("its content is not what its checksum was made of")
    try:
        return Document.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}") from None


def _checksum(data: dict[str, Any]) -> str:
    return hashlib.sha256(compact(data).encode()).hexdigest()
