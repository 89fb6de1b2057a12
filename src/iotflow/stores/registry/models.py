"""The registry's tables, the same on SQLite and PostgreSQL (alembic/versions/registry)."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.types import TypeDecorator


class NaiveTimeError(DontWrapMixin, ValueError):
    """The caller's mistake: unwrapped, so that it is not taken for a database that is away."""


def aware(moment: datetime) -> datetime:
    """The same moment.

    Raises:
        NaiveTimeError: it has no zone.
    """
    if moment.tzinfo is None:
        raise NaiveTimeError("a datetime without a zone would be read as local time")
    return moment


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in and out; SQLite keeps them as UTC without a zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = aware(value).astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite counts ids on (and never hands a deleted one out again) for INTEGER columns alone.
Id = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()


def _table(name: str, *parts: Any) -> Table:
    return Table(name, metadata, *parts, sqlite_autoincrement=True)


users = _table(
    "users",
    Column("id", Id, primary_key=True),
    Column("username", String(64), nullable=False),
    Column("username_key", String(64), nullable=False, unique=True),
    Column("email", String(254), nullable=False),
    Column("email_key", String(254), nullable=False, unique=True),
    Column("password_hash", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("last_login_at", UtcDateTime),
    # Raised to end all sessions but the one that is kept.
    Column("token_version", Integer, nullable=False, server_default="0"),
    Column("kept_session", String(32)),
)

refresh_tokens = _table(
    "refresh_tokens",
    Column("id", Id, primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("family", String(32), nullable=False, index=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
    Column("used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
)

personal_tokens = _table(
    "personal_tokens",
    Column("id", Id, primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("scopes", String(32), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Index("ix_personal_tokens_user_id_id", "user_id", "id"),
)

# A used one is gone. None created it: the command line did.
invitations = _table(
    "invitations",
    Column("id", Id, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_by", BigInteger),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
)

devices = _table(
    "devices",
    Column("id", Id, primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("description", Text),
    Column("device_type", String(64)),
    Column("location", String(256)),
    Column("labels", JSON, nullable=False),
    Column("firmware_version", String(64)),
    Column("hardware_version", String(64)),
    Column("status", String(16), nullable=False),
    Column("last_seen", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_devices_user_id_id", "user_id", "id"),
)

api_keys = _table(
    "api_keys",
    Column("id", Id, primary_key=True),
    Column("device_id", Id, ForeignKey("devices.id", ondelete="CASCADE"), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Index("ix_api_keys_device_id", "device_id"),
)

# One row.
cache_epochs = Table(
    "cache_epochs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
)

worker_slots = Table(
    "worker_slots",
    metadata,
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("owner", String(64), nullable=False),
    Column("lanes", Integer, nullable=False),
    Column("renewed_at", UtcDateTime, nullable=False),
)

groups = _table(
    "groups",
    Column("id", Id, primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("description", Text),
    Column("color", String(32)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_groups_user_id_id", "user_id", "id"),
)

group_devices = Table(
    "group_devices",
    metadata,
    Column("group_id", Id, ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
    Column("device_id", Id, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True),
    Column("added_at", UtcDateTime, nullable=False),
    Index("ix_group_devices_device_id", "device_id"),
)

# Configurations are kept as the JSON text that came in.
device_config = Table(
    "device_config",
    metadata,
    Column(
        "device_id",
        Id,
        ForeignKey("devices.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("version", BigInteger, nullable=False),
    Column("config", Text, nullable=False),
    Column("reported_version", BigInteger),
    Column("reported_config", Text),
    Column("reported_at", UtcDateTime),
)

# Users and devices that a deletion names are gone: these ids refer to nothing.
jobs = _table(
    "jobs",
    Column("id", Id, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("requested_by", BigInteger, nullable=False),
    Column("subject_id", BigInteger, nullable=False),
    Column("counts", JSON, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("after_device_id", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", UtcDateTime, index=True),
    Column("lease_owner", String(64)),
    Column("lease_until", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("parameters", JSON, nullable=False, server_default="{}"),
    Column("state", JSON, nullable=False, server_default="{}"),
    Column("report", JSON, nullable=False, server_default="{}"),
)

job_devices = Table(
    "job_devices",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("device_id", BigInteger, primary_key=True, index=True),
)

job_keys = Table(
    "job_keys",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", String(64), primary_key=True),
)
