"""How much there is in the registry."""

from sqlalchemy import func, select

from iotflow.domain.devices import DeviceStatus
from iotflow.domain.users import UserRole
from iotflow.stores.registry.models import devices, groups, users
from iotflow.stores.registry.protocol import RegistryCounts
from iotflow.stores.registry.sql_base import Connections


class Counts(Connections):
    async def counts(self) -> RegistryCounts:
        by_role = select(users.c.role, users.c.is_active, func.count()).group_by(
            users.c.role, users.c.is_active
        )
        by_status = select(devices.c.status, func.count()).group_by(devices.c.status)
        async with self.reading() as connection:
            roles = (await connection.execute(by_role)).all()
            rows = (await connection.execute(by_status)).all()
            found = {row[0]: row[1] for row in rows}
            in_groups = await connection.execute(select(func.count()).select_from(groups))
            return RegistryCounts(
                users=sum(n for *_, n in roles),
                active_users=sum(n for _, active, n in roles if active),
                admins=sum(n for role, _, n in roles if role == UserRole.ADMIN.value),
                devices={status: found.get(status.value, 0) for status in DeviceStatus},
                groups=in_groups.scalar_one(),
            )
