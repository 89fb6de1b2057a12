"""Ids of submissions that rise with time; on SQLite a log, whose indexes by owner are its own.

A submission's id was its device and then its time, so that every insert fell on a page of its own.
"""

from alembic import op

revision = "0002_log_first"
down_revision = "0001_events"
branch_labels = None
depends_on = None

_LOG = """
CREATE TABLE log (
    id TEXT NOT NULL UNIQUE,
    event_type TEXT NOT NULL,
    timestamp_ms BIGINT NOT NULL,
    user_id BIGINT,
    device_id BIGINT,
    details TEXT NOT NULL,
    -- Never given twice: what is above `through` is what the indexes do not have.
    seq INTEGER PRIMARY KEY AUTOINCREMENT
)
"""
_TURNED = """
INSERT INTO log (id, event_type, timestamp_ms, user_id, device_id, details)
SELECT
    CASE WHEN event_type = 'telemetry.submitted' AND instr(id, '-') > 0
        THEN substr(id, instr(id, '-') + 1) || '-' || substr(id, 1, instr(id, '-') - 1)
        ELSE id
    END,
    event_type, timestamp_ms, user_id, device_id, details
FROM events ORDER BY timestamp_ms, id
"""
_INDEX = """
CREATE TABLE events_by_{owner} (
    {owner}_id BIGINT NOT NULL,
    timestamp_ms BIGINT NOT NULL,
    id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY ({owner}_id, timestamp_ms, id)
) WITHOUT ROWID
"""
# Few among the submissions, and sought by their type.
_INDEX_OF_RARE = """
CREATE INDEX {name} ON events ({first}event_type, timestamp_ms, id)
WHERE event_type <> 'telemetry.submitted'
"""
_FILL = """
INSERT INTO events_by_{owner} SELECT {owner}_id, timestamp_ms, id, seq FROM events
WHERE {owner}_id IS NOT NULL ORDER BY {owner}_id, timestamp_ms, id
"""
_FORGET = """
CREATE TRIGGER events_deleted AFTER DELETE ON events BEGIN
    DELETE FROM events_by_user
    WHERE user_id = old.user_id AND timestamp_ms = old.timestamp_ms AND id = old.id;
    DELETE FROM events_by_device
    WHERE device_id = old.device_id AND timestamp_ms = old.timestamp_ms AND id = old.id;
END
"""


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        op.execute(
            "UPDATE events SET id = regexp_replace(id, '^(\\d+)-(\\d+)$', '\\2-\\1')"
            " WHERE event_type = 'telemetry.submitted'"
        )
        return
    op.execute(_LOG)
    op.execute(_TURNED)
    op.drop_table("events")
    op.rename_table("log", "events")
    op.create_index("ix_events_time", "events", ["timestamp_ms", "id"])
    op.execute(_INDEX_OF_RARE.format(name="ix_events_rare", first=""))
    for owner in ("user", "device"):
        op.execute(_INDEX.format(owner=owner))
        op.execute(_FILL.format(owner=owner))
        rare = f"ix_events_rare_{owner}"
        op.execute(_INDEX_OF_RARE.format(name=rare, first=f"{owner}_id, "))
    op.execute("CREATE TABLE events_indexed (through INTEGER NOT NULL)")
    op.execute("INSERT INTO events_indexed SELECT coalesce(max(seq), 0) FROM events")
    op.execute(_FORGET)
