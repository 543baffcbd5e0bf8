"""Tables of the latency database, the same on SQLite and PostgreSQL. Rows are added, never changed or deleted."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text, text

# Raised with every change that an older reader would misread.
SCHEMA_VERSION = 2

metadata = MetaData()

schemas = Table("hwnas_latency_schema", metadata, Column("version", Integer, primary_key=True))

tables = Table(
    "latency_tables",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uid", String(32), nullable=False, unique=True),  # the same in every copy of the table
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
    Column("uid", String(32), nullable=False, unique=True),  # the same in every copy of the table
    Column("table_id", ForeignKey("latency_tables.id"), nullable=False, index=True),
    Column("fingerprint", Text, nullable=False),
    Column("fingerprint_after", Text),
    Column("protocol", Text, nullable=False),
    Column("speed", Float),  # time that the anchors took over what they took in the first visit; null: not known
    Column("added_at", String(40), nullable=False),
)


def _runs() -> list[Column[object]]:
    """Columns of everything that was timed."""
    return [
        Column("key", String(64), nullable=False),
        Column("runs_ms", Text),  # JSON list, round after round; null where there are none
        Column("drift", Text),  # JSON list, a factor a round; null where it is not known
        Column("energy_mj", Float),
        Column("measured_at", String(40), nullable=False),
    ]


def _evidence() -> list[Column[object]]:
    """Columns of a measured block or network: its runs, or why it has none."""
    return [
        Column("id", Integer, primary_key=True),
        Column("table_id", ForeignKey("latency_tables.id"), nullable=False),
        Column("visit_id", ForeignKey("visits.id"), nullable=False, index=True),
        *_runs(),
        Column("error", Text),
        Column("quoted", Text),  # JSON {mean_ms, std_ms, runs} of a file that kept no runs
        Column("artefact", String(200)),
        Column("compile_cpu_s", Float),
        # The only value that is ever set later: a newer attempt counts in place of this row, which stays as evidence.
        Column("superseded_at", String(40)),
    ]


def _one_counts(name: str) -> Index:
    """At most one row of a key counts; the database itself sees to it, whoever writes."""
    counts = text("superseded_at IS NULL")
    return Index(name, "table_id", "key", unique=True, sqlite_where=counts, postgresql_where=counts)


blocks = Table("blocks", metadata, *_evidence(), Column("block", Text, nullable=False), _one_counts("one_block_counts"))

networks = Table(
    "networks",
    metadata,
    *_evidence(),
    Column("label", Text, nullable=False),
    Column("role", String(8), nullable=False),
    Column("blocks", Text, nullable=False),
    _one_counts("one_network_counts"),
    Index("networks_by_role", "table_id", "role"),
)

# Blocks and networks of the first visit, measured again in later ones to see how fast the device is there.
anchors = Table(
    "anchors",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("table_id", ForeignKey("latency_tables.id"), nullable=False),
    Column("visit_id", ForeignKey("visits.id"), nullable=False, index=True),
    *_runs(),
)

# Looks at whether the device is still the one that was measured.
checks = Table(
    "checks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uid", String(32), nullable=False, unique=True),
    Column("table_id", ForeignKey("latency_tables.id"), nullable=False, index=True),
    Column("created_at", String(40), nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("speed", Float, nullable=False),
    Column("low", Float, nullable=False),
    Column("high", Float, nullable=False),
    Column("sentinels", Integer, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("accepted", Boolean, nullable=False),
)
