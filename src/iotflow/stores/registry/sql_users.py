"""Users and their sessions."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.domain.users import User, UserRole
from iotflow.errors import ConflictError, NotFoundError
from iotflow.stores.registry.models import refresh_tokens, users
from iotflow.stores.registry.protocol import NewRefreshToken, NewUser
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
    )


class Users(Connections):
    async def create_user(self, new: NewUser, now: datetime) -> User:
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
                created = await connection.execute(insert(users).values(row).returning(users))
                return to_user(created.one())
        except IntegrityError:
            raise await self._taken(new) from None

    async def _taken(self, new: NewUser) -> ConflictError:
        async with self.reading() as connection:
            name = await connection.execute(
                select(users.c.id).where(users.c.username_key == fold(new.username))
            )
            if name.first() is not None:
                return ConflictError("This username is taken.", code="username_taken")
        return ConflictError("This e-mail address is taken.", code="email_taken")

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
        try:
            async with self.writing() as connection:
                await _insert_token(connection, new, now)
                await _forget_expired(connection, now)
        except IntegrityError:
            if await self.user(new.user_id) is None:
                raise NotFoundError("There is no such user.") from None
            raise

    async def rotate_refresh_token(
        self, digest: str, successor_digest: str, expires_at: datetime, now: datetime
    ) -> tuple[User, str] | None:
        tokens = refresh_tokens.c
        async with self.writing() as connection:
            spent = await connection.execute(
                update(refresh_tokens)
                .where(tokens.digest == digest, tokens.used_at.is_(None))
                .where(tokens.revoked_at.is_(None), tokens.expires_at > now)
                .values(used_at=now)
                .returning(tokens.user_id, tokens.family)
            )
            token = spent.first()
            if token is None:
                await _end_family(connection, digest, now, only_used=True)
                return None
            owner = (
                await connection.execute(select(users).where(users.c.id == token.user_id))
            ).first()
            if owner is None or not owner.is_active:
                return None
            new = NewRefreshToken(token.user_id, token.family, successor_digest, expires_at)
            await _insert_token(connection, new, now)
            return to_user(owner), token.family

    async def end_session(self, digest: str, now: datetime) -> None:
        async with self.writing() as connection:
            await _end_family(connection, digest, now, only_used=False)


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
) -> None:
    tokens = refresh_tokens.c
    family = select(tokens.family).where(tokens.digest == digest)
    if only_used:
        family = family.where(tokens.used_at.is_not(None))
    await connection.execute(
        update(refresh_tokens)
        .where(tokens.family.in_(family), tokens.revoked_at.is_(None))
        .values(revoked_at=now)
    )
