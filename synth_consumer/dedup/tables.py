"""The four Faust tables, with what is looked up beside their keys: who waits for what, and when to look again.

Tables are the truth and live in their changelog; the indexes here are made from them whenever partitions come.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import faust
from aiokafka.partitioner import murmur2
from faust.stores.memory import Store as MemoryStore

from synth_consumer.dedup.clock import Agenda, due_at
from synth_consumer.dedup.rows import DeliveryRow, RequestRow, Row, SynthesisRow, TableName, WaiterRow, waiter_key
from synth_consumer.dedup.steps import Write

_ROWS: dict[TableName, type[Row]] = {
    "requests": RequestRow,
    "syntheses": SynthesisRow,
    "waiters": WaiterRow,
    "deliveries": DeliveryRow,
}
_YIELD_EVERY = 500


def partition_of(key: bytes, partitions: int) -> int:
    """Where a key lies: murmur2, as Java's and aiokafka's default partitioners have it."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


class ChangelogTable(faust.Table):  # type: ignore[misc]  # Faust is untyped here
    """A Faust table that says which changelog messages are still on their way."""

    mundane_level = "debug"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sent: list[asyncio.Future[Any]] = []

    def send_changelog(self, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Called by Faust for every change of a row."""
        future: asyncio.Future[Any] = super().send_changelog(*args, **kwargs)
        self.sent.append(future)
        return future


class Tables:
    """Reads and writes rows; one instance per worker. Implements `orders.View` and `deliveries.Deliveries`."""

    def __init__(self, app: Any, partitions: int, *, on_error: Callable[[BaseException], None]) -> None:
        self._app = app
        self._partitions = partitions
        self._on_error = on_error
        self._tables: dict[TableName, ChangelogTable] = {name: self._table(name) for name in _ROWS}
        self._waiting: dict[str, dict[str, None]] = {}
        self._ending: set[bytes] = set()
        self._agendas: dict[int, Agenda] = {}
        self._looks: dict[bytes, float] = {}  # earliest look at each synthesis that stands in an agenda

    def request(self, request_id: str) -> RequestRow | None:
        """One request."""
        value = self._tables["requests"].data.get(request_id.encode())
        return RequestRow.from_bytes(value) if value else None

    def synthesis(self, fingerprint: str) -> SynthesisRow | None:
        """One synthesis."""
        value = self._tables["syntheses"].data.get(fingerprint.encode())
        return SynthesisRow.from_bytes(value) if value else None

    def waiter(self, fingerprint: str, request_id: str) -> WaiterRow | None:
        """One waiter, also one that is just being told its end."""
        value = self._tables["waiters"].data.get(waiter_key(fingerprint, request_id))
        return WaiterRow.from_bytes(value) if value else None

    def waiters(self, fingerprint: str) -> Iterator[WaiterRow]:
        """Waiters of a synthesis that are not being told their end yet, the longest waiting first."""
        for request_id in self._waiting.get(fingerprint, ()):
            if waiter_key(fingerprint, request_id) not in self._ending:
                row = self.waiter(fingerprint, request_id)
                if row is not None and row.end is None:
                    yield row

    def waiting(self, fingerprint: str) -> int:
        """How many wait for a synthesis, with those who are just being told their end."""
        return len(self._waiting.get(fingerprint, ()))

    def delivery(self, request_id: str) -> DeliveryRow | None:
        """The webhooks of one request."""
        value = self._tables["deliveries"].data.get(request_id.encode())
        return DeliveryRow.from_bytes(value) if value else None

    def agenda(self, partition: int) -> Agenda:
        """When to look at which row of a partition."""
        return self._agendas.setdefault(partition, Agenda())

    def looked(self, table: TableName, key: bytes) -> None:
        """A row came up in its agenda and stands there no more."""
        if table == "syntheses":
            self._looks.pop(key, None)

    def look_again(self, table: TableName, key: bytes, partition: int) -> None:
        """Put a row back into its agenda."""
        value = self._tables[table].data.get(key)
        if value:
            self._plan(table, key, _ROWS[table].from_bytes(value), partition)

    def apply(self, writes: Iterable[Write], partition: int) -> list["asyncio.Future[Any]"]:
        """Write rows of the partition whose event is being processed.

        Returns:
            The changelog messages; done when the bus has them.
        """
        for write in writes:
            table = self._tables[write.table]
            if write.row is None:
                if write.key in table.data:
                    del table[write.key]
                self._unindex(write)
            else:
                known = write.table != "syntheses" and write.key in table.data
                table[write.key] = write.row.to_bytes()
                if isinstance(write.row, WaiterRow) and write.row.remove_at:
                    self._unindex(write)
                    self._plan(write.table, write.key, write.row, partition)
                elif not known:
                    self._index(write.table, write.key, write.row, partition)
        return self._sent()

    def end(self, waiters: Iterable[WaiterRow]) -> None:
        """These are being told their end; nobody else is to tell them another."""
        self._ending.update(waiter.key for waiter in waiters)

    def is_ending(self, waiter: bytes) -> bool:
        """Whether a waiter is just being told its end."""
        return waiter in self._ending

    def sizes(self) -> dict[str, int]:
        """Rows of each table on this worker. RocksDB counts by reading; do not ask every second."""
        return {name: len(table.data) for name, table in self._tables.items()}

    @property
    def in_flight(self) -> int:
        """Syntheses somebody waits for."""
        return len(self._waiting)

    @property
    def waiters_total(self) -> int:
        """Requests that wait."""
        return sum(len(ids) for ids in self._waiting.values())

    def changelog_topic(self, table: TableName) -> str:
        """Name of a table's changelog topic."""
        return str(self._tables[table].changelog_topic_name)

    def _table(self, name: TableName) -> ChangelogTable:
        # A row is bytes for Faust: no second JSON pass, and one small object per row in memory.
        table: ChangelogTable = self._app.Table(name, key_type=bytes, value_type=bytes, partitions=self._partitions)
        table.on_recover(self._rebuilder(name))
        return table

    def _sent(self) -> list["asyncio.Future[Any]"]:
        sent: list[asyncio.Future[Any]] = []
        for table in self._tables.values():
            if table.sent:
                sent += table.sent
                table.sent.clear()
        return sent

    def _rebuilder(self, name: TableName) -> Callable[[], Awaitable[None]]:
        async def rebuild() -> None:
            # Faust lets exceptions of these callbacks fall under the table.
            try:
                await self._rebuild(name)
            except Exception as error:
                self._on_error(error)

        return rebuild

    async def _rebuild(self, name: TableName) -> None:
        topic, assignor = self.changelog_topic(name), self._app.assignor
        held = {tp.partition for tp in assignor.assigned_actives() if tp.topic == topic}
        copied = {tp.partition for tp in assignor.assigned_standbys() if tp.topic == topic}
        for agenda in self._agendas.values():
            agenda.drop(name)
        if name == "waiters":
            self._waiting.clear()
            self._ending.clear()
        if name == "syntheses":
            self._looks.clear()
        lost: list[bytes] = []
        async for key, value in self._items(name):
            partition = partition_of(key.split(b"/", 1)[0], self._partitions)
            if partition in held:
                self._index(name, key, _ROWS[name].from_bytes(value), partition)
            elif partition not in copied:
                lost.append(key)
        store = self._tables[name].data
        if isinstance(store, MemoryStore):
            # Faust's memory store keeps rows written here after their partition went elsewhere.
            for key in lost:
                store.data.pop(key, None)

    async def _items(self, name: TableName) -> AsyncIterator[tuple[bytes, bytes]]:
        for number, item in enumerate(list(self._tables[name].data.items())):
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
            yield item

    def _index(self, name: TableName, key: bytes, row: Row, partition: int) -> None:
        if isinstance(row, WaiterRow) and not row.remove_at:
            self._waiting.setdefault(row.fingerprint, {})[row.request_id] = None
        self._plan(name, key, row, partition)

    def _unindex(self, write: Write) -> None:
        if write.table != "waiters":
            return
        self._ending.discard(write.key)
        fingerprint, request_id = write.key.decode().split("/", 1)
        ids = self._waiting.get(fingerprint)
        if ids is not None:
            ids.pop(request_id, None)
            if not ids:
                del self._waiting[fingerprint]

    def _plan(self, name: TableName, key: bytes, row: Row, partition: int) -> None:
        assert isinstance(row, RequestRow | SynthesisRow | WaiterRow | DeliveryRow)
        at = due_at(row)
        if name == "syntheses":
            if self._looks.get(key, at + 1) <= at:
                return  # looked at sooner anyway, and put back then
            self._looks[key] = at
        self.agenda(partition).add(at, name, key)
