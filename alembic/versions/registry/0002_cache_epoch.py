"""The cache epoch: one row that says since when caches may be believed."""

import sqlalchemy as sa
from alembic import op

revision = "0002_cache_epoch"
down_revision = "0001_accounts_and_devices"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table(
        "cache_epochs",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(table, [{"id": 1, "epoch": 1}])
