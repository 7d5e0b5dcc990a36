"""Dead letters as they lie on their topic: found, chosen, and made into messages again."""

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiokafka import ConsumerRecord

from infra.errors import UserError
from producers.drafts import new_request_id, usable_id
from producers.topic_log import TopicLog, headers_of
from schemas import topics
from schemas.codec import Message, event_type
from schemas.codes import ErrorCode
from schemas.dead_letters import DeadLetter, original_headers, read_dead_letter
from schemas.requests import SynthesisRequested


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of the dead-letter topic."""

    id: str
    """`PARTITION:OFFSET` on the dead-letter topic."""
    reason: DeadLetter
    message: Message
    """Key, value and headers as they came, our own headers taken off."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are meant; what is None chooses nothing away."""

    ids: frozenset[str] | None = None
    code: ErrorCode | None = None
    stage: str | None = None
    topic: str | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is one of them."""
        reason = letter.reason
        return (
            (self.ids is None or letter.id in self.ids)
            and self.code in {None, reason.code}
            and self.stage in {None, reason.stage}
            and self.topic in {None, reason.topic}
        )


async def letters(log: TopicLog, choice: Choice) -> AsyncIterator[Letter]:
    """The chosen dead letters, in the order of each partition. Records that are none of ours are passed over."""
    async for record in log.records(topics.DEAD_LETTERS):
        letter = _letter(record)
        if letter is not None and choice.takes(letter):
            yield letter


async def whole_message(log: TopicLog, letter: Letter) -> Message:
    """The message as it was first published; a value too long for a dead letter is read from where it came.

    Raises:
        UserError: it no longer lies there, or something else does.
    """
    reason = letter.reason
    if not reason.truncated:
        return letter.message
    place = f"{reason.topic}/{reason.partition} offset {reason.offset}"
    record = await log.record_at(reason.topic, reason.partition, reason.offset)
    if record is None:
        raise UserError(f"dead letter {letter.id} holds only the head of {place}, where it is no longer kept")
    value = bytes(record.value or b"")
    if hashlib.sha256(value).hexdigest() != reason.value_sha256:
        raise UserError(f"dead letter {letter.id} holds only the head of {place}, where something else lies now")
    return Message(record.key, value, tuple(headers_of(record)))


def ended_id(letter: Letter, message: Message) -> str | None:
    """The id under which a request ended when it became a dead letter; None: it is no request, or had no usable id.

    A known id changes nothing when it comes again, so such a request has another try only under a fresh one.
    """
    if letter.reason.topic != topics.REQUESTS or event_type(message.headers) not in {None, SynthesisRequested.ce_type}:
        return None
    return usable_id(message.value)


def under_new_id(letter: Letter, message: Message) -> tuple[str, Message]:
    """The same request under a fresh id, and that id: what ended under its own stays ended.

    Raises:
        UserError: the message is no request that could have an id.
    """
    try:
        data = json.loads(message.value)
    except ValueError:
        data = None
    if letter.reason.topic != topics.REQUESTS or not isinstance(data, dict):
        raise UserError(f"dead letter {letter.id} is no readable request, so it cannot have another id")
    request_id = new_request_id()
    value = json.dumps({**data, "request_id": request_id}, ensure_ascii=False).encode()
    return request_id, Message(request_id.encode(), value, message.headers)


def _letter(record: ConsumerRecord) -> Letter | None:
    headers = headers_of(record)
    try:
        reason = read_dead_letter(headers)
    except ValueError:
        return None
    message = Message(record.key, bytes(record.value or b""), original_headers(headers))
    return Letter(f"{record.partition}:{record.offset}", reason, message)
