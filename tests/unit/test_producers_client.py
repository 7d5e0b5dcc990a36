import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from producers.bus import OnLost, OnRecord
from producers.client import SpeechClient
from producers.errors import RequestInvalidError, SpeechFailedError, SpeechTimeoutError
from schemas import topics
from schemas.base import utc_now
from schemas.codec import Message, context_of, decode, encode, event_type
from schemas.codes import AudioFormat, ErrorCode, State
from schemas.completions import AudioInfo, CompletionData, ErrorInfo, RequestCompleted, RequestStatus
from schemas.requests import SynthesisRequested
from tests.waiting import eventually

Answer = Callable[["FakeBus", SynthesisRequested], Awaitable[None] | None]


class FakeBus:
    """Keeps what is delivered, and lets `answer` reply to every request before its acknowledgement."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer
        self.delivered: list[tuple[str, Message]] = []
        self.order: list[str] = []
        self.listeners: dict[str, tuple[OnRecord, OnLost]] = {}
        self.ended: list[str] = []

    async def deliver(self, topic: str, messages: Sequence[Message]) -> None:
        self.order.append(f"deliver {topic}")
        for message in messages:
            self.delivered.append((topic, message))
            if self.answer is not None:
                result = self.answer(self, decode(SynthesisRequested, message.value))
                if result is not None:
                    await result
        await asyncio.sleep(0)

    async def listen(self, topic: str, on_record: OnRecord, on_lost: OnLost) -> None:
        self.order.append(f"listen {topic}")
        self.listeners[topic] = (on_record, on_lost)

    async def past(self, topic: str, keys: frozenset[bytes]) -> AsyncIterator[tuple[bytes, bytes | None]]:
        self.order.append(f"past {topic}")
        for request_id in self.ended:
            if request_id.encode() in keys:
                data = CompletionData(request_id=request_id, status="completed", audio=audio())
                event = RequestCompleted(type="speech.completed", timestamp=utc_now(), data=data)
                yield request_id.encode(), encode(event, source="test").value

    def complete(self, request_id: str, **data: Any) -> None:
        data = {"status": "completed", "audio": audio(), **data}
        completion = CompletionData(request_id=request_id, **data)
        event = RequestCompleted(type=f"speech.{completion.status}", timestamp=utc_now(), data=completion)
        self.say(topics.COMPLETED, encode(event, source="test"))

    def progress(self, request_id: str, state: State, percent: int) -> None:
        event = RequestStatus(request_id=request_id, state=state, percent=percent, at=utc_now())
        self.say(topics.STATUS, encode(event, source="test"))

    def say(self, topic: str, message: Message) -> None:
        if topic in self.listeners:
            self.listeners[topic][0](message.key, message.value)


def audio() -> AudioInfo:
    return AudioInfo(
        url="http://x/y.wav", format=AudioFormat.WAV, bytes=1, sha256="0" * 64, duration_s=1.0, sample_rate=24_000
    )


def completes(bus: FakeBus, request: SynthesisRequested) -> None:
    bus.complete(str(request.request_id))


async def test_publishes_a_cloud_event_keyed_by_its_request_id() -> None:
    bus = FakeBus()
    async with SpeechClient(bus=bus) as speech:
        receipt = await speech.publish("你好", voice="male1", style={"break": 3}, metadata={"chat": 7})
    [(topic, message)] = bus.delivered
    request = decode(SynthesisRequested, message.value)
    assert topic == topics.REQUESTS
    assert message.key == receipt.request_id.encode()
    assert event_type(message.headers) == SynthesisRequested.ce_type
    assert context_of(message.headers).traceparent == receipt.traceparent
    assert (request.text, request.voice, request.style.break_, request.metadata) == ("你好", "male1", 3, {"chat": 7})
    assert len(receipt.request_id) == 26


async def test_a_publisher_does_not_read_the_bus() -> None:
    bus = FakeBus()
    async with SpeechClient(bus=bus) as speech:
        await speech.publish("hello")
    assert bus.listeners == {}


async def test_goes_on_with_a_given_trace_and_id() -> None:
    bus = FakeBus()
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    async with SpeechClient(bus=bus) as speech:
        receipt = await speech.publish("hello", request_id="order:1", traceparent=trace)
    assert (receipt.request_id, receipt.traceparent) == ("order:1", trace)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"text": ""}, "text"),
        ({"text": "x" * 10_001}, "text"),
        ({"text": "x", "request_id": "with space"}, "request_id"),
        ({"text": "x", "callback_url": "ftp://x/"}, "callback_url"),
        ({"text": "x", "style": {"oral": 10}}, "style.oral"),
        ({"text": "x", "format": "aiff"}, "format"),
        ({"text": "x", "vioce": "female1"}, "vioce"),
    ],
)
async def test_an_invalid_request_names_its_field_and_is_not_sent(options: dict[str, Any], field: str) -> None:
    bus = FakeBus()
    async with SpeechClient(bus=bus) as speech:
        with pytest.raises(RequestInvalidError) as caught:
            await speech.publish(**options)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert bus.delivered == []


async def test_one_bad_request_of_many_keeps_all_from_being_sent() -> None:
    bus = FakeBus()
    async with SpeechClient(bus=bus) as speech:
        with pytest.raises(RequestInvalidError):
            await speech.publish_many([{"text": "good"}, {"text": ""}])
        assert bus.delivered == []
        receipts = await speech.publish_many([{"text": "good"}, SynthesisRequested(text="also", request_id="r2")])
    assert [receipt.request_id for receipt in receipts][1] == "r2"
    assert len(bus.delivered) == 2


async def test_synthesize_listens_before_it_publishes_and_takes_an_answer_that_overtakes_the_acknowledgement() -> None:
    bus = FakeBus(completes)
    async with SpeechClient(bus=bus) as speech:
        completion = await speech.synthesize("hello", timeout_s=5)
        assert completion.audio is not None
        await speech.synthesize("again", timeout_s=5)
    assert bus.order == [f"listen {topics.COMPLETED}", f"deliver {topics.REQUESTS}", f"deliver {topics.REQUESTS}"]


async def test_a_failure_raises_with_its_code() -> None:
    def fails(bus: FakeBus, request: SynthesisRequested) -> None:
        error = ErrorInfo(code=ErrorCode.UNSUPPORTED_VOICE, message="no voice named x")
        bus.complete(str(request.request_id), status="failed", audio=None, error=error)

    async with SpeechClient(bus=FakeBus(fails)) as speech:
        with pytest.raises(SpeechFailedError) as caught:
            await speech.synthesize("hello", voice="x")
    assert caught.value.code is ErrorCode.UNSUPPORTED_VOICE
    assert str(caught.value) == "unsupported_voice: no voice named x"


async def test_a_cancelled_request_raises_with_its_status() -> None:
    def cancels(bus: FakeBus, request: SynthesisRequested) -> None:
        bus.complete(str(request.request_id), status="cancelled", audio=None)

    async with SpeechClient(bus=FakeBus(cancels)) as speech:
        with pytest.raises(SpeechFailedError, match="cancelled") as caught:
            await speech.synthesize("hello")
    assert caught.value.code is None


async def test_a_timeout_names_the_request_and_makes_room() -> None:
    async with SpeechClient(bus=FakeBus(), max_waiting=1) as speech:
        for _ in range(3):
            with pytest.raises(SpeechTimeoutError) as caught:
                await speech.synthesize("hello", timeout_s=0.01)
            assert caught.value.request_id in str(caught.value)


async def test_a_cancelled_wait_makes_room() -> None:
    bus = FakeBus()
    async with SpeechClient(bus=bus, max_waiting=1) as speech:
        waiting = asyncio.create_task(speech.synthesize("hello"))
        await eventually(lambda: bus.delivered)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        bus.answer = completes
        assert (await speech.synthesize("next", timeout_s=5)).audio


async def test_more_than_may_wait_are_submitted_as_room_comes() -> None:
    bus = FakeBus()
    async with SpeechClient(bus=bus, max_waiting=2) as speech:
        submitting = asyncio.create_task(speech.submit_many([{"text": "a", "request_id": f"r{n}"} for n in range(5)]))
        for expected in (2, 3, 4, 5):
            await eventually(lambda: len(bus.delivered) == expected)  # noqa: B023
            bus.complete(f"r{expected - 2}")
        pending = await submitting
        for n in (3, 4):
            bus.complete(f"r{n}")
        assert [(await one.completion(timeout_s=5)).request_id for one in pending] == [f"r{n}" for n in range(5)]


async def test_two_who_wait_for_one_id_both_hear() -> None:
    bus = FakeBus()
    async with SpeechClient(bus=bus) as speech:
        first = await speech.submit("hello", request_id="same")
        second = await speech.submit("hello", request_id="same")
        bus.complete("same")
        assert (await first.completion(timeout_s=1)) == (await second.completion(timeout_s=1))


async def test_progress_is_reported_until_the_end() -> None:
    seen: list[tuple[str, int]] = []

    def walks(bus: FakeBus, request: SynthesisRequested) -> None:
        bus.progress(str(request.request_id), State.ACCEPTED, 0)
        bus.progress(str(request.request_id), State.COMPLETED, 100)
        bus.complete(str(request.request_id))

    async with SpeechClient(bus=FakeBus(walks)) as speech:
        await speech.synthesize("hello", on_status=lambda status: seen.append((str(status.state), status.percent)))
    assert seen == [("accepted", 0), ("completed", 100)]


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_the_last_status_is_seen_although_the_completion_is_here_before_it(status: str) -> None:
    seen: list[State] = []

    def ends(bus: FakeBus, request: SynthesisRequested) -> None:
        request_id = str(request.request_id)
        error = None if status == "completed" else ErrorInfo(code=ErrorCode.BAD_AUDIO, message="silent", attempts=3)
        bus.complete(request_id, status=status, audio=None if error else audio(), error=error)
        asyncio.get_running_loop().call_later(0.05, bus.progress, request_id, State(status), 100)

    async with SpeechClient(bus=FakeBus(ends)) as speech:
        with nullcontext() if status == "completed" else pytest.raises(SpeechFailedError):
            await speech.synthesize("hello", on_status=lambda status: seen.append(status.state))
    assert seen == [State(status)]


async def test_follow_ends_with_the_terminal_state() -> None:
    bus = FakeBus()
    async with SpeechClient(bus=bus) as speech:
        states = asyncio.create_task(_states(speech, "r1"))
        await eventually(lambda: topics.STATUS in bus.listeners)
        await asyncio.sleep(0)
        bus.progress("r2", State.FAILED, 100)
        bus.progress("r1", State.QUEUED, 5)
        bus.progress("r1", State.FAILED, 100)
        bus.progress("r1", State.QUEUED, 5)
        assert await asyncio.wait_for(states, 5) == [State.QUEUED, State.FAILED]


async def _states(speech: SpeechClient, request_id: str) -> list[State]:
    return [status.state async for status in speech.follow(request_id)]


async def test_a_callback_that_fails_is_reported_and_ends_nothing() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def walks(bus: FakeBus, request: SynthesisRequested) -> None:
        bus.progress(str(request.request_id), State.QUEUED, 5)
        bus.progress(str(request.request_id), State.COMPLETED, 100)
        bus.complete(str(request.request_id))

    def fails(_: RequestStatus) -> None:
        raise LookupError("mine")

    async with SpeechClient(bus=FakeBus(walks)) as speech:
        assert (await speech.synthesize("hello", on_status=fails)).audio
    assert isinstance(reported[0]["exception"], LookupError)


async def test_unreadable_answers_are_passed_over() -> None:
    bus = FakeBus()
    async with SpeechClient(bus=bus) as speech:
        pending = await speech.submit("hello", request_id="r1")
        bus.say(topics.COMPLETED, Message(b"r1", b"{", ()))
        bus.say(topics.COMPLETED, Message(None, b"", ()))
        bus.complete("r1")
        assert await pending.completion(timeout_s=1)


async def test_those_who_wait_hear_that_listening_ended_and_the_next_listens_anew() -> None:
    bus = FakeBus()
    async with SpeechClient(bus=bus) as speech:
        pending = await speech.submit("hello")
        bus.listeners[topics.COMPLETED][1](ConnectionError("gone"))
        with pytest.raises(ConnectionError, match="gone"):
            await pending.completion(timeout_s=1)
        bus.answer = completes
        assert await speech.synthesize("again", timeout_s=1)
    assert bus.order.count(f"listen {topics.COMPLETED}") == 2


async def test_closing_tells_those_who_wait() -> None:
    async with SpeechClient(bus=FakeBus()) as speech:
        pending = await speech.submit("hello")
    with pytest.raises(ConnectionError, match="closed"):
        await pending.completion(timeout_s=1)
    with pytest.raises(RuntimeError, match="async with"):
        await speech.publish("hello")


async def test_a_request_that_ended_before_gives_its_known_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated id changes nothing, so nothing is published about it any more."""
    monkeypatch.setattr("producers.recall._AFTER_S", 0.01)
    bus = FakeBus()
    bus.ended = ["order-1", "order-2"]
    async with SpeechClient(bus=bus) as speech:
        assert (await speech.synthesize("hi", request_id="order-1", timeout_s=5)).request_id == "order-1"
        pending = await speech.submit_many([{"text": "hi", "request_id": f"order-{n}"} for n in (2, 3)])
        assert (await pending[0].completion(timeout_s=5)).status == "completed"
        with pytest.raises(SpeechTimeoutError):
            await pending[1].completion(timeout_s=0.05)


async def test_the_log_is_not_read_for_ids_made_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.recall._AFTER_S", 0.0)
    bus = FakeBus()
    async with SpeechClient(bus=bus) as speech:
        await asyncio.sleep(0.002)  # an id tells its millisecond
        with pytest.raises(SpeechTimeoutError):
            await speech.synthesize("hi", timeout_s=0.05)
    assert f"past {topics.COMPLETED}" not in bus.order
