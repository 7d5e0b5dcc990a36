"""What `tts.deliveries` says was settled, by whichever notifier."""

from aiokafka import ConsumerRecord

from infra.settings import KafkaSettings
from notifier.bus_log import Positions, read_log
from notifier.ledger import Settled
from schemas.codec import DecodeError, decode
from schemas.deliveries import DeliveryAttempted, DeliveryState
from schemas.topics import DELIVERIES

# More than can be settled while the slowest attempt of a partition holds its offset back: 15 s at 1,000/s.
_TAIL = 32_768


def event_id(delivery_id: str, attempt: int) -> str:
    """CloudEvents `id` of an attempt's event: the same attempt, repeated, is the same event."""
    return f"{delivery_id}:{attempt}"


class DeliveryTail:
    """What the newest events settled; a second reading goes on where the first ended."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._positions: Positions = {}

    async def read(self) -> list[Settled]:
        """Attempts settled since the last reading; the first reads the last of them.

        Raises:
            ServerUnavailableError: the bus does not answer.
        """
        records = read_log(self._settings, DELIVERIES, newest=_TAIL, positions=self._positions)
        return [settled async for record in records if (settled := _settled(record)) is not None]


def _settled(record: ConsumerRecord) -> Settled | None:
    name = next((value.decode() for name, value in record.headers or () if name == "ce_id"), "")
    try:
        event = decode(DeliveryAttempted, record.value)
    except DecodeError:
        return None
    return Settled(name.rpartition(":")[0], event.attempt, event.state is not DeliveryState.RETRYING)
