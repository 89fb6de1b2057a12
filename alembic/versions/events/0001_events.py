"""Events, and an index for each question that is asked of them."""

import sqlalchemy as sa
from alembic import op

revision = "0001_events"
down_revision = None
branch_labels = None
depends_on = None

# Ids are ordered by their bytes on every server, whatever its locale: pages go by them.
ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("id", ID, primary_key=True),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("timestamp_ms", sa.BigInteger, nullable=False),
        sa.Column("user_id", sa.BigInteger),
        sa.Column("device_id", sa.BigInteger),
        sa.Column("details", sa.Text, nullable=False),
    )
    # Every one ends as a page is ordered, so that a page costs what it holds.
    op.create_index("ix_events_time", "events", ["timestamp_ms", "id"])
    op.create_index("ix_events_type", "events", ["event_type", "timestamp_ms", "id"])
    op.create_index("ix_events_user", "events", ["user_id", "timestamp_ms", "id"])
    op.create_index("ix_events_device", "events", ["device_id", "timestamp_ms", "id"])
