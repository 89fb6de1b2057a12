"""Jobs that are asked for with parameters, and that report what they have found."""

import sqlalchemy as sa
from alembic import op

revision = "0005_maintenance_jobs"
down_revision = "0004_tokens"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("parameters", "state", "report"):
        op.add_column("jobs", sa.Column(name, sa.JSON, nullable=False, server_default="{}"))
    op.create_index("ix_job_devices_device_id", "job_devices", ["device_id"])
