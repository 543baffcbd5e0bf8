"""Tables of the latency database, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

# Raised with every change that an older reader would misread.
SCHEMA_VERSION = 1

metadata = MetaData()

schemas = Table("hwnas_latency_schema", metadata, Column("version", Integer, primary_key=True))

tables = Table(
    "latency_tables",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("device", String(200), nullable=False, unique=True),
    Column("device_json", Text, nullable=False),
    Column("identity", String(64), nullable=False),  # of the fingerprint
    Column("conditions", String(200), nullable=False),  # what of the protocol changes the quantity that is measured
    Column("fingerprint", Text, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("created_at", String(40), nullable=False),
)

# The state of the device when a batch of rows was measured: stored once a batch, not once a row.
visits = Table(
    "visits",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("table_id", ForeignKey("latency_tables.id"), nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("protocol", Text, nullable=False),
)


def _evidence() -> list[Column[object]]:
    """Columns that every measured thing has: its runs, or why it has none."""
    return [
        Column("runs_ms", Text),  # JSON list, round after round; null where `error` tells why
        Column("drift", Text),  # JSON list, a factor a round; null where it is not known
        Column("error", Text),
        Column("measured_at", String(40), nullable=False),
        Column("artefact", String(200)),
        Column("compile_cpu_s", Float),
    ]


blocks = Table(
    "blocks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("table_id", ForeignKey("latency_tables.id"), nullable=False),
    Column("visit_id", ForeignKey("visits.id"), nullable=False),
    Column("key", String(64), nullable=False),
    Column("block", Text, nullable=False),
    *_evidence(),
    UniqueConstraint("table_id", "key"),
)

networks = Table(
    "networks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("table_id", ForeignKey("latency_tables.id"), nullable=False),
    Column("visit_id", ForeignKey("visits.id"), nullable=False),
    Column("key", String(64), nullable=False),
    Column("label", Text, nullable=False),
    Column("role", String(8), nullable=False),
    Column("blocks", Text, nullable=False),
    *_evidence(),
    UniqueConstraint("table_id", "key"),
    Index("networks_by_role", "table_id", "role"),
)
