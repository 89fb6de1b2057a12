"""Users and their sessions."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.domain.users import User, UserRole
from iotflow.errors import ConflictError, NotAllowedError, NotFoundError
from iotflow.stores.registry.models import (
    api_keys,
    devices,
    invitations,
    personal_tokens,
    refresh_tokens,
    users,
)
from iotflow.stores.registry.protocol import NewRefreshToken, NewUser, Reused, Rotated, UserQuery
from iotflow.stores.registry.sql_base import Connections

# A used token must be known for as long as a thief might replay it, not for ever.
_KEEP_EXPIRED = timedelta(days=7)
_FORGET_AT_ONCE = 100


def fold(name: str) -> str:
    """How names and addresses are compared: without regard to case."""
    return name.casefold()


def to_user(row: Any) -> User:
    return User(
        id=row.id,
        username=row.username,
        email=row.email,
        role=UserRole(row.role),
        is_active=row.is_active,
        created_at=row.created_at,
        updated_at=row.updated_at,
        last_login_at=row.last_login_at,
        token_version=row.token_version,
        kept_session=row.kept_session,
    )


async def lock_user(connection: AsyncConnection, user_id: int) -> User | None:
    """The user, whose row nobody else changes until this transaction ends."""
    # Rows that refer to it may still be made meanwhile.
    found = await connection.execute(
        select(users).where(users.c.id == user_id).with_for_update(key_share=True)
    )
    row = found.first()
    return to_user(row) if row else None


async def refuse_beyond(
    connection: AsyncConnection, table: Table, user_id: int, adding: int, limit: int
) -> None:
    """Keep a user's rows of a table within a limit, also when several are added at once.

    Raises:
        ConflictError: `too_many_…`, named after the table.
    """
    # The user's row is the lock.
    await lock_user(connection, user_id)
    there = await connection.execute(
        select(func.count()).select_from(table).where(table.c.user_id == user_id)
    )
    if there.scalar_one() + adding > limit:
        raise ConflictError(
            f"This account may have {limit} {table.name}, and this would be more.",
            code=f"too_many_{table.name}",
        )


class Users(Connections):
    async def create_user(
        self, new: NewUser, now: datetime, invitation_digest: str | None = None
    ) -> User:
        row = {
            "username": new.username,
            "username_key": fold(new.username),
            "email": new.email,
            "email_key": fold(new.email),
            "password_hash": new.password_hash,
            "role": new.role.value,
            "is_active": True,
            "created_at": now,
            "updated_at": now,
        }
        try:
            async with self.writing() as connection:
                if invitation_digest is not None:
                    await _use_invitation(connection, invitation_digest, now)
                created = await connection.execute(insert(users).values(row).returning(users))
                return to_user(created.one())
        except IntegrityError:
            raise await self._taken(fold(new.username)) from None

    async def _taken(self, username_key: str | None, but_by: int = 0) -> ConflictError:
        taken = (users.c.username_key == username_key) & (users.c.id != but_by)
        async with self.reading() as connection:
            name = await connection.execute(select(users.c.id).where(taken))
            if username_key is not None and name.first() is not None:
                return ConflictError("This username is taken.", code="username_taken")
        return ConflictError("This e-mail address is taken.", code="email_taken")

    async def update_user(
        self, user_id: int, changes: Mapping[str, Any], now: datetime
    ) -> User | None:
        values: dict[str, Any] = {**changes, "updated_at": now}
        for name in ("username", "email"):
            if name in changes:
                values[f"{name}_key"] = fold(changes[name])
        try:
            async with self.writing() as connection:
                return await _changed(connection, user_id, values)
        except IntegrityError:
            raise await self._taken(values.get("username_key"), user_id) from None

    async def set_password(
        self, user_id: int, password_hash: str, kept_session: str | None, now: datetime
    ) -> User | None:
        values = {"password_hash": password_hash, "updated_at": now}
        async with self.writing() as connection:
            return await _end_sessions(connection, user_id, values, kept_session, now)

    async def set_user_active(
        self, user_id: int, is_active: bool, now: datetime
    ) -> tuple[User, list[str]] | None:
        values = {"is_active": is_active, "updated_at": now}
        async with self.writing() as connection:
            if is_active:
                user = await _changed(connection, user_id, values)
            else:
                user = await _end_sessions(connection, user_id, values, None, now)
            if user is None:
                return None
            digests = await connection.execute(
                select(api_keys.c.digest)
                .join_from(api_keys, devices)
                .where(devices.c.user_id == user_id, api_keys.c.revoked_at.is_(None))
            )
            return user, list(digests.scalars())

    async def users(self, query: UserQuery) -> tuple[list[User], bool]:
        statement = (
            select(users)
            .where(users.c.id > query.after_id, *_filters(query))
            .order_by(users.c.id)
            .limit(query.limit + 1)
        )
        async with self.reading() as connection:
            found = [to_user(row) for row in await connection.execute(statement)]
        return found[: query.limit], len(found) > query.limit

    async def credentials_of(self, user_id: int) -> tuple[User, str] | None:
        async with self.reading() as connection:
            found = (await connection.execute(select(users).where(users.c.id == user_id))).first()
        return (to_user(found), found.password_hash) if found else None

    async def user(self, user_id: int) -> User | None:
        async with self.reading() as connection:
            found = (await connection.execute(select(users).where(users.c.id == user_id))).first()
        return to_user(found) if found else None

    async def credentials(self, username_or_email: str) -> tuple[User, str] | None:
        key = fold(username_or_email)
        matches = or_(users.c.username_key == key, users.c.email_key == key)
        async with self.reading() as connection:
            found = (await connection.execute(select(users).where(matches).limit(1))).first()
        return (to_user(found), found.password_hash) if found else None

    async def note_login(self, user_id: int, now: datetime, password_hash: str | None) -> None:
        values: dict[str, Any] = {"last_login_at": now}
        if password_hash is not None:
            values["password_hash"] = password_hash
        async with self.writing() as connection:
            await connection.execute(update(users).where(users.c.id == user_id).values(values))

    async def add_refresh_token(self, new: NewRefreshToken, now: datetime) -> None:
        async with self.writing() as connection:
            owner = await lock_user(connection, new.user_id)
            if owner is None or new.token_version not in (None, owner.token_version):
                raise NotFoundError("There is no such user.")
            await _insert_token(connection, new, now)
            await _forget_expired(connection, now)

    async def rotate_refresh_token(
        self, digest: str, successor_digest: str, expires_at: datetime, now: datetime
    ) -> Rotated | Reused | None:
        tokens = refresh_tokens.c
        async with self.writing() as connection:
            # First of all the user, as whoever ends all sessions does: that end sees the
            # successor, or this sees the end.
            known = await connection.execute(select(tokens.user_id).where(tokens.digest == digest))
            owner = await lock_user(connection, known.scalar() or 0)
            spent = await connection.execute(
                update(refresh_tokens)
                .where(tokens.digest == digest, tokens.used_at.is_(None))
                .where(tokens.revoked_at.is_(None), tokens.expires_at > now)
                .values(used_at=now)
                .returning(tokens.user_id, tokens.family)
            )
            token = spent.first()
            if token is None:
                victim = await _end_family(connection, digest, now, only_used=True)
                return None if victim is None else Reused(victim)
            if owner is None or not owner.is_active:
                return None
            new = NewRefreshToken(token.user_id, token.family, successor_digest, expires_at)
            await _insert_token(connection, new, now)
            return Rotated(owner, token.family)

    async def end_session(self, digest: str, now: datetime) -> int | None:
        async with self.writing() as connection:
            return await _end_family(connection, digest, now, only_used=False)


async def _insert_token(connection: AsyncConnection, new: NewRefreshToken, now: datetime) -> None:
    await connection.execute(
        insert(refresh_tokens).values(
            user_id=new.user_id,
            family=new.family,
            digest=new.digest,
            created_at=now,
            expires_at=new.expires_at,
        )
    )


async def _forget_expired(connection: AsyncConnection, now: datetime) -> None:
    tokens = refresh_tokens.c
    old = select(tokens.id).where(tokens.expires_at < now - _KEEP_EXPIRED).limit(_FORGET_AT_ONCE)
    await connection.execute(delete(refresh_tokens).where(tokens.id.in_(old)))


async def _end_family(
    connection: AsyncConnection, digest: str, now: datetime, *, only_used: bool
) -> int | None:
    """The user whose session has ended with that."""
    tokens = refresh_tokens.c
    family = select(tokens.family).where(tokens.digest == digest)
    if only_used:
        family = family.where(tokens.used_at.is_not(None))
    ended = await connection.execute(
        update(refresh_tokens)
        .where(tokens.family.in_(family), tokens.revoked_at.is_(None))
        .values(revoked_at=now)
        .returning(tokens.user_id)
    )
    return ended.scalars().first()


async def _use_invitation(connection: AsyncConnection, digest: str, now: datetime) -> None:
    used = await connection.execute(
        delete(invitations)
        .where(invitations.c.digest == digest, invitations.c.expires_at > now)
        .returning(invitations.c.id)
    )
    if used.first() is None:
        raise NotAllowedError(
            "This invitation opens nothing: it is unknown, used or expired. Ask for another.",
            code="invalid_invitation",
        )


async def _changed(
    connection: AsyncConnection, user_id: int, values: Mapping[str, Any]
) -> User | None:
    changed = await connection.execute(
        update(users).where(users.c.id == user_id).values(**values).returning(users)
    )
    row = changed.first()
    return to_user(row) if row else None


async def _end_sessions(
    connection: AsyncConnection,
    user_id: int,
    values: Mapping[str, Any],
    kept_session: str | None,
    now: datetime,
) -> User | None:
    """Change a user, and end their tokens and all sessions but one."""
    version = {"token_version": users.c.token_version + 1, "kept_session": kept_session}
    user = await _changed(connection, user_id, {**values, **version})
    tokens = refresh_tokens.c
    others = (tokens.user_id == user_id) & (tokens.family != (kept_session or ""))
    await connection.execute(
        update(refresh_tokens).where(others, tokens.revoked_at.is_(None)).values(revoked_at=now)
    )
    await connection.execute(delete(personal_tokens).where(personal_tokens.c.user_id == user_id))
    return user


def _filters(query: UserQuery) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if query.role is not None:
        filters.append(users.c.role == query.role.value)
    if query.is_active is not None:
        filters.append(users.c.is_active.is_(query.is_active))
    if query.text is not None:
        found_in = (users.c.username_key, users.c.email_key)
        text = fold(query.text)
        filters.append(or_(*(column.contains(text, autoescape=True) for column in found_in)))
    return filters
