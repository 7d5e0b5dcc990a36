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
MAX_BYTES = 900_000
"""Key, value and headers of a message that is kept whole; Kafka's 1 MB default leaves the rest for our own headers."""
_CUT_BYTES = 131_072  # what a cut message may have: half for the head of its value, half for its headers
_KEY_BYTES = 1_024
# Of a header, beside its name and value: two lengths, each a varint.
_HEADER_OVERHEAD = 10


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
    truncated: bool = False  # too large for a dead letter: only a head is here, the message stays whole at its offset
    value_bytes: int = 0
    value_sha256: str = ""

    def message_of(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes]],
        *,
        most_bytes: int = MAX_BYTES,
    ) -> Message:
        """The record for the dead-letter topic.

        Args:
            key: of the original; one over 1,024 bytes becomes its SHA-256 when the message is cut.
            value: of the original.
            headers: of the original; those of an earlier dead letter are left out.
            most_bytes: of the original, all together. What has more is cut, and marked as truncated.
        """
        body = value or b""
        original = original_headers(headers)
        truncated = len(key or b"") + len(body) + sum(map(_size, original)) > most_bytes
        own = tuple((_PREFIX + name, fact.encode()) for name, fact in self._facts(body, truncated).items())
        if not truncated:
            return Message(key, body, original + own)
        half = min(most_bytes, _CUT_BYTES) // 2
        return Message(_short_key(key), body[:half], _first_headers(original, half) + own)

    def _facts(self, body: bytes, truncated: bool) -> dict[str, str]:
        return {
            "code": self.code,
            "message": self.message[:1_000],
            "pointer": self.pointer[:256],
            "stage": self.stage,
            "topic": self.topic,
            "partition": str(self.partition),
            "offset": str(self.offset),
            "at": self.at.isoformat(),
            "truncated": "true" if truncated else "false",
            "value_bytes": str(len(body)),
            "value_sha256": hashlib.sha256(body).hexdigest(),
        }


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


def _size(header: tuple[str, bytes]) -> int:
    name, value = header
    return len(name.encode()) + len(value) + _HEADER_OVERHEAD


def _first_headers(headers: Headers, most_bytes: int) -> Headers:
    """As many as fit, those that are too large by themselves left out."""
    kept, room = [], most_bytes
    for header in headers:
        if (size := _size(header)) <= room:
            kept.append(header)
            room -= size
    return tuple(kept)


def _short_key(key: bytes | None) -> bytes | None:
    return key if key is None or len(key) <= _KEY_BYTES else hashlib.sha256(key).hexdigest().encode()
