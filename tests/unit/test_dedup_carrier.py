"""What the carrier says of what it carries, and that a dead letter always fits on the bus."""

import asyncio
from typing import Any, cast

from structlog.testing import capture_logs

from infra.kafka.clients import BusProducer
from schemas import topics
from schemas.codec import Context, Message, new_traceparent
from schemas.codes import AudioFormat, ErrorCode, Priority
from schemas.dead_letters import dead_letter, read_dead_letter
from schemas.requests import SpeechSpec, SynthesisAdmitted
from synth_consumer.dedup.carrier import Carrier, facts_only
from synth_consumer.dedup.ends import Asker, expired
from synth_consumer.dedup.ledger import Ledger
from synth_consumer.dedup.rows import moment
from synth_consumer.dedup.steps import Step, say
from synth_consumer.dedup.tables import Tables


def test_the_facts_of_a_dead_letter_are_kept_and_fit() -> None:
    facts = dead_letter(
        ErrorCode.INVALID_REQUEST, "no", pointer="", stage="dedup", topic="tts.requests", partition=1, offset=2
    )
    whole = facts.message_of(b"k" * 1_200_000, b"v" * 500_000, [("x", b"x" * 2_000_000)])
    small = facts_only(whole)
    size = len(small.key or b"") + len(small.value or b"") + sum(len(n) + len(v) for n, v in small.headers)
    assert size < 10_000
    letter = read_dead_letter(small.headers)
    assert (letter.topic, letter.partition, letter.offset, letter.truncated) == ("tts.requests", 1, 2, True)
    assert letter.value_bytes == 500_000


class Taken:
    """A bus that takes everything, and tables that write nothing."""

    async def send(self, topic: str, message: Message, *, partition: int | None = None) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    def apply(self, writes: Any, partition: int) -> list["asyncio.Future[Any]"]:
        return []

    def end(self, waiters: Any) -> None:
        return None


class Event:
    def ack(self) -> bool:
        return True


async def test_a_request_has_a_line_when_it_is_admitted_and_one_at_its_end() -> None:
    def fail(error: BaseException) -> None:
        raise AssertionError(error)

    ledger, trace = Ledger(10), new_traceparent()
    carrier = Carrier(cast("Tables", Taken()), cast("BusProducer", Taken()), ledger, on_error=fail)
    admitted = SynthesisAdmitted(
        request_id="r1",
        fingerprint="a" * 64,
        spec=SpeechSpec(text="Secret.", voice="female1", language="en", dialect="english"),
        format=AudioFormat.WAV,
        priority=Priority.INTERACTIVE,
        accepted_at=moment(0),
        expires_at=moment(9),
    )
    outputs = (
        say(topics.ADMITTED, admitted, Context(trace)),
        *expired(Asker("r1", 0.0, "a" * 64, traceparent=trace), now=9.0),
    )
    with capture_logs() as lines:
        await carrier.carry_out(ledger.begin(0, Event()), [Step("accepted", outputs=outputs)], 0)
    assert [line["event"] for line in lines] == ["request admitted", "request ended"]
    assert {(line["request_id"], line["fingerprint"], line["trace_id"]) for line in lines} == {
        ("r1", "a" * 64, trace.split("-")[1])
    }
    assert lines[1]["status"] == "expired"
