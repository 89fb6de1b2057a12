"""Points, and the index of the newest time of each measurement."""

import sqlalchemy as sa
from alembic import op

revision = "0001_points"
down_revision = None
branch_labels = None
depends_on = None

# Names are ordered by their bytes on every server, whatever its locale.
NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "points",
        sa.Column("device_id", sa.BigInteger, nullable=False),
        sa.Column("timestamp_ms", sa.BigInteger, nullable=False),
        sa.Column("measurement", NAME, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("value_type", sa.SmallInteger, nullable=False),
        sa.Column("unit", sa.Text, nullable=False, server_default=""),
        sa.Column("int_value", sa.BigInteger),
        sa.Column("text_value", sa.Text),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("ingested_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("device_id", "timestamp_ms", "measurement"),
        sqlite_with_rowid=False,
    )
    # An index alone: values are read from the points, so the two can never tell two stories.
    op.create_table(
        "latest",
        sa.Column("device_id", sa.BigInteger, nullable=False),
        sa.Column("measurement", NAME, nullable=False),
        sa.Column("timestamp_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("device_id", "measurement"),
        sqlite_with_rowid=False,
    )
