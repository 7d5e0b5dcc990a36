"""A Kafka record as the handlers see it."""

from dataclasses import dataclass
from typing import Any, Self

from schemas.codec import Headers


@dataclass(frozen=True, slots=True)
class Record:
    """What came from the bus; headers are never absent."""

    topic: str  # without namespace
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = 0

    @classmethod
    def of(cls, topic: str, message: Any) -> Self:
        """The record of a Faust message."""
        headers = tuple((name, value) for name, value in message.headers or () if value is not None)
        stamp = round((message.timestamp or 0) * 1000)
        return cls(topic, message.partition, message.offset, message.key, message.value, headers, stamp)

    @property
    def ref(self) -> str:
        """Names the record, the same on every delivery."""
        return f"{self.topic}-{self.partition}-{self.offset}"

    def header(self, wanted: str) -> str | None:
        """A header as text; None when it is absent."""
        return next((value.decode("utf-8", "replace") for name, value in self.headers if name == wanted), None)
