"""Personal tokens, invitations, and which sessions of a user still count."""

import sqlalchemy as sa
from alembic import op

revision = "0004_tokens"
down_revision = "0003_groups_config_jobs"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    version = sa.Column("token_version", sa.Integer, nullable=False, server_default="0")
    op.add_column("users", version)
    op.add_column("users", sa.Column("kept_session", sa.String(32)))
    op.create_table(
        "personal_tokens",
        sa.Column("id", ID, primary_key=True),
        sa.Column("user_id", ID, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("scopes", sa.String(32), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("last_used_at", TIME),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_personal_tokens_user_id_id", "personal_tokens", ["user_id", "id"])
    op.create_table(
        "invitations",
        sa.Column("id", ID, primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("created_by", sa.BigInteger),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_invitations_expires_at", "invitations", ["expires_at"])
