"""What a message on `tts.requests` leads to: admitted, refused, moved to where its id belongs. No I/O of its own."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pydantic import ValidationError

from infra.speech import RefusedError, Speech
from schemas import topics
from schemas.codec import Context, DecodeError, Message, context_of, decode, new_traceparent
from schemas.codes import ErrorCode, State
from schemas.completions import ErrorInfo, RequestStatus
from schemas.dead_letters import dead_letter
from schemas.requests import CancelAdmitted, CancelRequested, SynthesisAdmitted, SynthesisRequested
from synth_consumer.dedup import ends
from synth_consumer.dedup.door import (
    Sender,
    digest_of,
    digest_of_bytes,
    read_request,
    sender_of,
    with_request_id,
)
from synth_consumer.dedup.ends import Asker
from synth_consumer.dedup.records import Record
from synth_consumer.dedup.rows import RequestRow, moment
from synth_consumer.dedup.steps import Output, Step, Write, derived_id, say
from synth_consumer.dedup.tables import partition_of

STAGE = "dedup"
_ROAD = {state: number for number, state in enumerate(State)}
# With a value of `max_request_bytes` still below the 1 MB of one message.
_MAX_HEADER_BYTES = 65_536
_MOVED = "voxbus_moved"
"""Marks a message that was published again to where its id belongs: it is not moved a second time."""
_REFUSED = "voxbus_refused"
"""On a moved message: the verdict that was reached where it was read, as JSON of an ErrorInfo."""


class Requests(Protocol):
    """The rows of requests."""

    def request(self, request_id: str) -> RequestRow | None:
        """One request."""


def letter(record: Record, code: ErrorCode, message: str, *, topic: str, pointer: str = "") -> Output:
    """A record for the dead-letter topic, whole, with its reason."""
    facts = dead_letter(
        code,
        message,
        pointer=pointer,
        stage=STAGE,
        topic=topic,
        partition=record.partition,
        offset=record.offset,
    )
    return Output(topics.DEAD_LETTERS, facts.message_of(record.key, record.value, record.headers))


@dataclass(frozen=True, slots=True)
class Admission:
    """Decides at the door; `retention_s` and `max_bytes` as in `DedupSettings`."""

    requests: Requests
    speech: Speech
    partitions: int
    retention_s: float
    max_bytes: int

    def on_request(self, record: Record, *, now: float) -> Step:
        """One message, in whatever shape its publisher gave it."""
        verdict = record.header(_REFUSED)
        if verdict is not None:
            return self._told_elsewhere(record, verdict, now)
        try:
            request = read_request(record.value, max_bytes=self.max_bytes)
        except RefusedError as error:
            return self._refuse(record, error, sender_of(record.value), now)
        if request.request_id is None:
            # The place alone is the same in every installation; the same message keeps its id when it comes again.
            place = (topics.REQUESTS, str(record.partition), str(record.offset))
            request_id = "req-" + derived_id(*place, str(record.timestamp_ms), digest_of_bytes(record.value))
            return self._move(record, request_id, with_request_id(record.value or b"", request_id), now)
        if not self._in_place(record, request.request_id):
            return self._move(record, request.request_id, record.value or b"", now)
        return self._admit(record, request.request_id, request, now)

    def on_cancel(self, record: Record, *, now: float) -> Step:
        """A request is not wanted any more; who waits for what is known where its fingerprint is at home."""
        try:
            cancel = decode(CancelRequested, record.value)
        except DecodeError as error:
            dead = letter(record, ErrorCode.INVALID_REQUEST, str(error), topic=topics.REQUESTS, pointer=error.pointer)
            return Step("refused", outputs=(dead,))
        if not self._in_place(record, cancel.request_id):
            return self._move(record, cancel.request_id, record.value or b"", now)
        row = self.requests.request(cancel.request_id)
        if row is None or row.state.terminal or row.fingerprint is None:
            return Step("ignored")
        admitted = CancelAdmitted(request_id=cancel.request_id, fingerprint=row.fingerprint)
        return Step("cancelled", outputs=(say(topics.ADMITTED, admitted),))

    def _admit(self, record: Record, request_id: str, request: SynthesisRequested, now: float) -> Step:
        digest = digest_of(request)
        known = self.requests.request(request_id)
        if known is not None and known.digest != digest:
            message = "this request_id is taken by a request with another content"
            return Step(
                "conflict",
                outputs=(
                    letter(record, ErrorCode.REQUEST_CONFLICT, message, topic=topics.REQUESTS, pointer="/request_id"),
                ),
            )
        if known is not None and known.source == record.ref and known.refused is not None:
            # Killed between its row and its end, or its offset not committed: the end is told, perhaps again.
            error = RefusedError(known.refused.code, known.refused.message, "")
            return self._refuse(record, error, Sender(request_id, request.callback_url, request.metadata), now, digest)
        if known is not None and (known.source != record.ref or known.state.terminal):
            return Step("repeat")
        try:
            spec = self.speech.spec_of(request)
        except RefusedError as error:
            sender = Sender(request_id, request.callback_url, request.metadata)
            return self._refuse(record, error, sender, now, digest)
        accepted_at = known.accepted_at if known else now
        expires_at = accepted_at + request.expires_in_s
        admitted = SynthesisAdmitted(
            request_id=request_id,
            fingerprint=self.speech.fingerprint_of(spec),
            spec=spec,
            format=request.format,
            priority=request.priority,
            callback_url=request.callback_url,
            metadata=request.metadata,
            accepted_at=moment(accepted_at),
            expires_at=moment(expires_at),
        )
        trace = context_of(record.headers).traceparent or new_traceparent()
        asker = Asker(request_id, accepted_at, admitted.fingerprint, traceparent=trace)
        row = RequestRow(
            digest=digest,
            source=record.ref,
            accepted_at=accepted_at,
            at=now,
            remove_at=expires_at + self.retention_s,
            fingerprint=admitted.fingerprint,
        )
        # Published before the event is acknowledged, and again when the same message is delivered again.
        outputs = [say(topics.ADMITTED, admitted, Context(trace))]
        if known is None or known.percent == 0:  # else it has moved on, and its percent would fall
            outputs.insert(0, ends.progressed(asker, State.ACCEPTED, 0, now=now))
        writes = () if known else (Write("requests", request_id.encode(), row),)
        return Step("accepted", writes, tuple(outputs))

    def _refuse(
        self, record: Record, error: RefusedError, sender: Sender, now: float, digest: str | None = None
    ) -> Step:
        dead = letter(record, error.code, error.message, topic=topics.REQUESTS, pointer=error.pointer)
        if sender.request_id is None:
            return Step("refused", outputs=(dead,))
        digest = digest or digest_of_bytes(record.value)
        info = ErrorInfo(code=error.code, message=error.message)
        if not self._in_place(record, sender.request_id):
            return Step("refused", outputs=(dead, self._verdict(record, sender, info)))
        writes, told = self._fail(record, sender, info, digest, now)
        return Step("refused", writes, (dead, *told))

    def _told_elsewhere(self, record: Record, verdict: str, now: float) -> Step:
        sender = sender_of(record.value)
        try:
            info = ErrorInfo.model_validate_json(verdict)
        except ValidationError:
            info = None
        if info is None or sender.request_id is None or not self._in_place(record, sender.request_id):
            message = f"header {_REFUSED} is not one of ours"
            return Step("refused", outputs=(letter(record, ErrorCode.INVALID_REQUEST, message, topic=topics.REQUESTS),))
        digest = record.header(_MOVED) or ""
        writes, told = self._fail(record, sender, info, digest, now)
        return Step("refused", writes, told)

    def _fail(
        self, record: Record, sender: Sender, info: ErrorInfo, digest: str, now: float
    ) -> tuple[tuple[Write, ...], tuple[Output, ...]]:
        assert sender.request_id is not None  # the callers' condition
        known = self.requests.request(sender.request_id)
        if known is not None and known.source != record.ref:
            # The id belongs to another message: neither its request nor its end is touched.
            return (), ()
        trace = context_of(record.headers).traceparent or new_traceparent()
        accepted_at = known.accepted_at if known else now
        asker = Asker(
            sender.request_id,
            accepted_at,
            callback_url=sender.callback_url,
            metadata=sender.metadata,
            traceparent=trace,
        )
        row = RequestRow(
            digest=digest,
            source=record.ref,
            accepted_at=accepted_at,
            at=now,
            remove_at=now + self.retention_s,
            state=State.FAILED,
            percent=100,
            error=info,
            refused=info,
        )
        writes = (Write("requests", sender.request_id.encode(), row),)
        return writes, tuple(ends.failed(asker, info, now=now))

    def _move(self, record: Record, request_id: str, value: bytes, now: float) -> Step:
        """Publish it once more, under its id, in the partition where its id belongs."""
        if record.header(_MOVED) is not None:
            message = "moved once already, and still not where its request_id belongs"
            return Step("refused", outputs=(letter(record, ErrorCode.INTERNAL, message, topic=topics.REQUESTS),))
        size = sum(len(name) + len(text) for name, text in record.headers)
        if size > _MAX_HEADER_BYTES:
            error = RefusedError(ErrorCode.INVALID_REQUEST, f"headers are larger than {_MAX_HEADER_BYTES} bytes", "")
            return self._refuse(record, error, sender_of(value), now)
        headers = [*record.headers, (_MOVED, digest_of_bytes(record.value).encode())]
        return Step("rekeyed", outputs=(self._addressed(request_id, value, headers),))

    def _verdict(self, record: Record, sender: Sender, info: ErrorInfo) -> Output:
        """Tells the owner of an id that its request failed here; the message itself is a dead letter already."""
        usable = {
            "request_id": sender.request_id,
            "callback_url": sender.callback_url,
            "metadata": sender.metadata,
        }
        value = json.dumps(usable, ensure_ascii=False).encode()
        kept = [(name, text) for name, text in record.headers if name == "traceparent"]
        headers = [
            *kept,
            (_MOVED, digest_of_bytes(record.value).encode()),
            (_REFUSED, info.model_dump_json().encode()),
        ]
        assert sender.request_id is not None  # the caller's condition
        return self._addressed(sender.request_id, value, headers)

    def _addressed(self, request_id: str, value: bytes, headers: Iterable[tuple[str, bytes]]) -> Output:
        headers = tuple(headers)
        if not any(name == "traceparent" for name, _ in headers):
            headers = (*headers, ("traceparent", new_traceparent().encode()))
        key = request_id.encode()
        return Output(topics.REQUESTS, Message(key, value, headers), partition_of(key, self.partitions))

    def _in_place(self, record: Record, request_id: str) -> bool:
        key = request_id.encode()
        return record.key == key and partition_of(key, self.partitions) == record.partition


def track(requests: Requests, event: RequestStatus) -> Step:
    """A status of a request, for its row: states only move forward, and the first end is the end."""
    row = requests.request(event.request_id)
    if row is None or row.state.terminal:
        return Step("ignored")
    if not event.state.terminal and (event.percent, _ROAD[event.state]) <= (row.percent, _ROAD[row.state]):
        return Step("ignored")
    moved = row.model_copy(
        update={
            "state": event.state,
            "percent": max(event.percent, row.percent),
            "at": event.at.timestamp(),
            "fingerprint": event.fingerprint or row.fingerprint,
            "cached": event.cached,
            "audio": event.audio,
            "error": event.error,
        }
    )
    return Step("tracked", (Write("requests", event.request_id.encode(), moved),))
