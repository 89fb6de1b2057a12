"""SQLite: submissions that are durable and not yet among the points."""

import sqlalchemy as sa
from alembic import op

revision = "0002_journal"
down_revision = "0001_points"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.create_table(
            "journal",
            sa.Column("seq", sa.Integer, primary_key=True),
            sa.Column("submissions", sa.LargeBinary, nullable=False),
        )
