"""Groups, device configuration, and jobs: what is deleted completely, in the background."""

import sqlalchemy as sa
from alembic import op

revision = "0003_groups_config_jobs"
down_revision = "0002_cache_epoch"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _groups()
    op.create_table(
        "device_config",
        sa.Column(
            "device_id",
            ID,
            sa.ForeignKey("devices.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("reported_version", sa.BigInteger),
        sa.Column("reported_config", sa.Text),
        sa.Column("reported_at", TIME),
    )
    _jobs()


def _groups() -> None:
    op.create_table(
        "groups",
        sa.Column("id", ID, primary_key=True),
        sa.Column("user_id", ID, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("color", sa.String(32)),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_groups_user_id_id", "groups", ["user_id", "id"])
    op.create_table(
        "group_devices",
        sa.Column(
            "group_id",
            ID,
            sa.ForeignKey("groups.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column(
            "device_id",
            ID,
            sa.ForeignKey("devices.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("added_at", TIME, nullable=False),
    )
    op.create_index("ix_group_devices_device_id", "group_devices", ["device_id"])


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", ID, primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("requested_by", sa.BigInteger, nullable=False),
        sa.Column("subject_id", sa.BigInteger, nullable=False),
        sa.Column("counts", sa.JSON, nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("after_device_id", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", TIME),
        sa.Column("lease_owner", sa.String(64)),
        sa.Column("lease_until", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("finished_at", TIME),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_due_at", "jobs", ["due_at"])
    for name, column in (
        (
            "job_devices",
            sa.Column("device_id", sa.BigInteger, primary_key=True, autoincrement=False),
        ),
        ("job_keys", sa.Column("digest", sa.String(64), primary_key=True)),
    ):
        op.create_table(
            name,
            sa.Column(
                "job_id",
                ID,
                sa.ForeignKey("jobs.id", ondelete="CASCADE"),
                primary_key=True,
                autoincrement=False,
            ),
            column,
        )
