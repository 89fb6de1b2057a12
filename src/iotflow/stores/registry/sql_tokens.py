"""Personal tokens and invitations."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.domain.tokens import Invitation, PersonalToken, Scope
from iotflow.domain.users import User
from iotflow.errors import ConflictError, NotFoundError
from iotflow.stores.registry.models import invitations, personal_tokens, users
from iotflow.stores.registry.protocol import NewInvitation, NewPersonalToken
from iotflow.stores.registry.sql_base import Connections
from iotflow.stores.registry.sql_users import lock_user, to_user

tokens = personal_tokens.c


def to_token(row: Any) -> PersonalToken:
    return PersonalToken(
        id=row.id,
        user_id=row.user_id,
        name=row.name,
        prefix=row.prefix,
        scopes=frozenset(Scope(word) for word in row.scopes.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )


def live(now: datetime) -> ColumnElement[bool]:
    """The condition of tokens that open something."""
    return or_(tokens.expires_at.is_(None), tokens.expires_at > now)


class Tokens(Connections):
    async def add_personal_token(
        self, new: NewPersonalToken, limit: int, now: datetime
    ) -> PersonalToken:
        async with self.writing() as connection:
            # The user's row is the lock: neither the limit nor an end of all tokens is passed by.
            owner = await lock_user(connection, new.user_id)
            if owner is None or owner.token_version != new.token_version:
                raise NotFoundError("There is no such user.")
            await _forget_expired(connection, new.user_id, now)
            if await _count(connection, new.user_id) >= limit:
                raise ConflictError(
                    f"This account has {limit} tokens, as many as it may. Delete one first.",
                    code="too_many_tokens",
                )
            created = await connection.execute(
                insert(personal_tokens).values(_row(new, now)).returning(personal_tokens)
            )
            return to_token(created.one())

    async def personal_tokens(
        self, user_id: int, after_id: int, limit: int, now: datetime
    ) -> tuple[list[PersonalToken], bool]:
        statement = (
            select(personal_tokens)
            .where(tokens.user_id == user_id, tokens.id > after_id, live(now))
            .order_by(tokens.id)
            .limit(limit + 1)
        )
        async with self.reading() as connection:
            found = [to_token(row) for row in await connection.execute(statement)]
        return found[:limit], len(found) > limit

    async def personal_token(self, digest: str, now: datetime) -> tuple[PersonalToken, User] | None:
        token = select(personal_tokens).where(tokens.digest == digest, live(now))
        async with self.reading() as connection:
            found = (await connection.execute(token)).first()
            if found is None:
                return None
            owner = await connection.execute(select(users).where(users.c.id == found.user_id))
            user = owner.first()
        return None if user is None else (to_token(found), to_user(user))

    async def delete_personal_token(self, user_id: int, token_id: int) -> str | None:
        async with self.writing() as connection:
            deleted = await connection.execute(
                delete(personal_tokens)
                .where(tokens.user_id == user_id, tokens.id == token_id)
                .returning(tokens.digest)
            )
            return deleted.scalar_one_or_none()

    async def note_token_used(self, token_id: int, now: datetime) -> None:
        async with self.writing() as connection:
            await connection.execute(
                update(personal_tokens).where(tokens.id == token_id).values(last_used_at=now)
            )

    async def add_invitation(self, new: NewInvitation, now: datetime) -> Invitation:
        row = {
            "digest": new.digest,
            "created_by": new.created_by,
            "created_at": now,
            "expires_at": new.expires_at,
        }
        async with self.writing() as connection:
            await connection.execute(delete(invitations).where(invitations.c.expires_at <= now))
            created = await connection.execute(
                insert(invitations).values(row).returning(invitations)
            )
            made = created.one()
        return Invitation(made.id, made.created_at, made.expires_at)


def _row(new: NewPersonalToken, now: datetime) -> dict[str, Any]:
    return {
        "user_id": new.user_id,
        "name": new.name,
        "digest": new.digest,
        "prefix": new.prefix,
        "scopes": " ".join(sorted(new.scopes)),
        "created_at": now,
        "expires_at": new.expires_at,
    }


async def _forget_expired(connection: AsyncConnection, user_id: int, now: datetime) -> None:
    await connection.execute(
        delete(personal_tokens).where(tokens.user_id == user_id, tokens.expires_at <= now)
    )


async def _count(connection: AsyncConnection, user_id: int) -> int:
    found = await connection.execute(
        select(func.count()).select_from(personal_tokens).where(tokens.user_id == user_id)
    )
    return found.scalar_one()
