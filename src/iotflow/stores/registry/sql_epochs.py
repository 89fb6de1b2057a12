"""The cache epoch: a number that every replica reads, and any may raise."""

from sqlalchemy import select, update

from iotflow.stores.registry.models import cache_epochs
from iotflow.stores.registry.sql_base import Connections


class Epochs(Connections):
    async def cache_epoch(self) -> int:
        async with self.reading() as connection:
            found = await connection.execute(select(cache_epochs.c.epoch))
            return found.scalar_one()

    async def raise_cache_epoch(self) -> int:
        epoch = cache_epochs.c.epoch
        async with self.writing() as connection:
            raised = await connection.execute(
                update(cache_epochs).values(epoch=epoch + 1).returning(epoch)
            )
            return raised.scalar_one()
