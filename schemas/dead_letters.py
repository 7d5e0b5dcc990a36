"""Dead letters: a message that cannot be handled, kept whole, with its reason in headers.

Key, value and headers of the original stay as they were, so that replaying is publishing them again without the
`voxbus_dlq_` headers.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from schemas.base import utc_now
from schemas.codec import Headers, Message
from schemas.codes import ErrorCode

_PREFIX = "voxbus_dlq_"
MAX_VALUE_BYTES = 900_000
"""Below Kafka's 1 MB default for one message, headers included."""
_HEAD_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why and from where."""

    code: ErrorCode
    message: str
    pointer: str  # JSON pointer to the field at fault; "" for the whole message
    stage: str
    topic: str  # without namespace, so that it can be replayed anywhere
    partition: int
    offset: int
    at: datetime
    truncated: bool = False  # the value was over MAX_VALUE_BYTES: only its head is here, it stays whole at its offset
    value_bytes: int = 0
    value_sha256: str = ""

    def message_of(self, key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> Message:
        """The record for the dead-letter topic."""
        body = value or b""
        truncated = len(body) > MAX_VALUE_BYTES
        facts = {
            "code": self.code,
            "message": self.message[:1_000],
            "pointer": self.pointer,
            "stage": self.stage,
            "topic": self.topic,
            "partition": str(self.partition),
            "offset": str(self.offset),
            "at": self.at.isoformat(),
            "truncated": "true" if truncated else "false",
            "value_bytes": str(len(body)),
            "value_sha256": hashlib.sha256(body).hexdigest(),
        }
        own = tuple((_PREFIX + name, value.encode()) for name, value in facts.items())
        kept = tuple((name, value) for name, value in headers if not name.startswith(_PREFIX))
        return Message(key, body[:_HEAD_BYTES] if truncated else body, kept + own)


def read_dead_letter(headers: Iterable[tuple[str, bytes]]) -> DeadLetter:
    """The reason of a dead letter.

    Raises:
        ValueError: the record is not a dead letter of ours.
    """
    facts = {name.removeprefix(_PREFIX): value.decode() for name, value in headers if name.startswith(_PREFIX)}
    try:
        return DeadLetter(
            code=ErrorCode(facts["code"]),
            message=facts["message"],
            pointer=facts["pointer"],
            stage=facts["stage"],
            topic=facts["topic"],
            partition=int(facts["partition"]),
            offset=int(facts["offset"]),
            at=datetime.fromisoformat(facts["at"]),
            truncated=facts["truncated"] == "true",
            value_bytes=int(facts["value_bytes"]),
            value_sha256=facts["value_sha256"],
        )
    except KeyError as error:
        raise ValueError(f"not a dead letter: header {_PREFIX}{error.args[0]} is missing") from None


def original_headers(headers: Iterable[tuple[str, bytes]]) -> Headers:
    """The headers the message had before it was dead-lettered."""
    return tuple((name, value) for name, value in headers if not name.startswith(_PREFIX))


def dead_letter(
    code: ErrorCode, message: str, *, pointer: str = "", stage: str, topic: str, partition: int, offset: int
) -> DeadLetter:
    """A dead letter made now."""
    return DeadLetter(code, message, pointer, stage, topic, partition, offset, utc_now())
