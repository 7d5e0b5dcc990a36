"""`SpeechClient`: how a chatbot has its answers spoken."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self, Unpack

from infra.settings import CommonSettings, KafkaSettings, load
from producers.bus import Bus, KafkaBus
from producers.drafts import RequestOptions, draft, draft_of
from producers.errors import SpeechFailedError, SpeechTimeoutError
from producers.recall import Recall, may_be_known
from producers.replies import Completions, Followers, OnStatus
from schemas import topics
from schemas.base import utc_now
from schemas.codec import Context, Message, encode, new_traceparent
from schemas.completions import CompletionData, RequestStatus
from schemas.requests import SynthesisRequested

SOURCE = "voxbus/producers"
_DEFAULT_WAITING = 10_000
# Messages handed to the producer before their acknowledgements are awaited; bounds its buffer.
_PUBLISH_BATCH = 1_000
# The end of a request comes on two topics; how long the last status may be behind the completion.
_LAST_STATUS_S = 2.0
# States of one request that a slow reader of `follow` may leave lying; a request has a few dozen at most.
_FOLLOW_BUFFER = 1_000


@dataclass(frozen=True, slots=True)
class Receipt:
    """The bus has the request."""

    request_id: str
    traceparent: str
    """W3C trace context that goes along through every stage."""


class Pending:
    """A published request whose end can be awaited."""

    def __init__(self, receipt: Receipt, future: asyncio.Future[CompletionData], completions: Completions) -> None:
        self.receipt = receipt
        self._future = future
        self._completions = completions

    @property
    def request_id(self) -> str:
        """Of the request."""
        return self.receipt.request_id

    @property
    def ended(self) -> bool:
        """Whether its completion is here, good or bad."""
        return self._future.done() and not self._future.cancelled() and self._future.exception() is None

    async def completion(self, *, timeout_s: float = 60.0) -> CompletionData:
        """Wait for the audio.

        Raises:
            SpeechFailedError: the request ended without audio.
            SpeechTimeoutError: no end within `timeout_s`; the request itself goes on, waiting for it ends.
        """
        try:
            async with asyncio.timeout(timeout_s):
                # Shielded: one impatient reader does not take the future from another.
                completion = await asyncio.shield(self._future)
        except TimeoutError:
            self.release()
            raise SpeechTimeoutError(self.request_id, timeout_s) from None
        if completion.status != "completed":
            error = completion.error
            raise SpeechFailedError(
                error.code if error else None, error.message if error else completion.status, completion
            )
        return completion

    def release(self) -> None:
        """Wait no longer, so that another request can be awaited."""
        self._completions.drop(self.request_id, self._future)


class SpeechClient:
    """Publishes requests and waits for their ends.

    One background reader, started with the first request that is waited for, serves all of them; it belongs to
    no consumer group, so any number of clients may run beside one another.

    Example:
        ```python
        async with SpeechClient("127.0.0.1:9092") as speech:
            await speech.publish("您的订单已发货。", voice="female1", callback_url="https://bot.example/hook")
            completion = await speech.synthesize("Hello, how can I help?", voice="male1", format="mp3")
            print(completion.audio.url)
        ```

    Args:
        kafka: how to reach the bus: `host:port`, comma separated, or full settings.
        client_id: shown in the broker's logs.
        max_waiting: how many requests may be awaited at once; submitting more waits for room.
        bus: instead of Kafka, for tests.
    """

    def __init__(
        self,
        kafka: KafkaSettings | str = "127.0.0.1:9092",
        *,
        client_id: str = "voxbus-client",
        max_waiting: int = _DEFAULT_WAITING,
        bus: Bus | None = None,
    ) -> None:
        self._settings = KafkaSettings(bootstrap_servers=kafka) if isinstance(kafka, str) else kafka
        self._client_id = client_id
        self._given_bus = bus
        self._bus: Bus | None = None
        self._resources = AsyncExitStack()
        self._listening: set[str] = set()
        self._listen_lock = asyncio.Lock()
        self._completions = Completions(max_waiting)
        self._followers = Followers()
        self._recall: Recall | None = None
        self._opened_at = utc_now()

    @classmethod
    def from_environment(cls, *, client_id: str = "voxbus-client") -> Self:
        """A client from `VOXBUS_KAFKA__…` variables.

        Raises:
            SettingsError: a variable is not valid.
        """
        return cls(load(CommonSettings).kafka, client_id=client_id)

    @classmethod
    def from_endpoints(cls, path: str | Path = ".voxbus/endpoints.json", *, client_id: str = "voxbus-client") -> Self:
        """A client of the embedded stack whose `voxbus up` wrote this file.

        Raises:
            UserError: the file is missing or not readable.
        """
        from producers.connection import settings_from_endpoints  # noqa: PLC0415  # only here is the stack needed

        return cls(settings_from_endpoints(Path(path)).kafka, client_id=client_id)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ServerUnavailableError: Kafka does not answer.
            UserError: its topics are missing.
        """
        if self._given_bus is not None:
            self._bus = self._given_bus
        else:
            self._bus = await self._resources.enter_async_context(KafkaBus(self._settings, client_id=self._client_id))
        self._recall = Recall(self._bus, self._completions)
        self._opened_at = utc_now()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect; those who still wait are told."""
        if self._recall is not None:
            await self._recall.close()
        self._bus = self._recall = None
        self._listening.clear()
        await self._resources.aclose()
        closed = ConnectionError("the speech client was closed")
        self._completions.on_lost(closed)
        self._followers.on_lost(closed)

    async def publish(self, text: str, *, traceparent: str | None = None, **options: Unpack[RequestOptions]) -> Receipt:
        """Send a request and return as soon as the bus has it.

        Args:
            text: 1 to 10,000 characters.
            traceparent: W3C trace context to go on with; a fresh one when absent.
            **options: see `RequestOptions`.

        Raises:
            RequestInvalidError: names the field at fault; nothing was sent.
            PublishError: the bus did not take it.
        """
        message, receipt = _prepared(draft_of(text, options), traceparent)
        await self._open_bus.deliver(topics.REQUESTS, [message])
        return receipt

    async def publish_many(self, requests: Iterable[SynthesisRequested | Mapping[str, object]]) -> list[Receipt]:
        """Send many requests, thousands at a time; all are checked before the first is sent.

        Raises:
            RequestInvalidError: one is not valid; nothing was sent.
            PublishError: the bus did not take one; others may have arrived.
        """
        prepared = [_prepared(_checked(request)) for request in requests]
        for start in range(0, len(prepared), _PUBLISH_BATCH):
            await self._open_bus.deliver(topics.REQUESTS, [m for m, _ in prepared[start : start + _PUBLISH_BATCH]])
        return [receipt for _, receipt in prepared]

    async def submit(
        self, text: str, *, on_status: OnStatus | None = None, **options: Unpack[RequestOptions]
    ) -> Pending:
        """Send a request whose end will be awaited: `await (await speech.submit(…)).completion()`.

        Args:
            text: 1 to 10,000 characters.
            on_status: called for every state the request reaches, on the event loop.
            **options: see `RequestOptions`.

        Raises:
            RequestInvalidError, PublishError: as `publish`.
        """
        request = draft_of(text, options)
        if on_status is not None:
            await self._listen(topics.STATUS)
            self._followers.add(str(request.request_id), on_status)
        try:
            return (await self.submit_many([request]))[0]
        except BaseException:
            if on_status is not None:
                self._followers.drop(str(request.request_id), on_status)
            raise

    async def submit_many(self, requests: Iterable[SynthesisRequested | Mapping[str, object]]) -> list[Pending]:
        """Send many requests whose ends will be awaited. At most `max_waiting` of them are open at a time.

        Raises:
            RequestInvalidError, PublishError: as `publish_many`.
        """
        prepared = [_prepared(_checked(request)) for request in requests]
        await self._listen(topics.COMPLETED)
        pending: list[Pending] = []
        try:
            while len(pending) < len(prepared):
                pending += await self._submit(prepared[len(pending) : len(pending) + _PUBLISH_BATCH])
        except BaseException:
            for one in pending:
                one.release()
            raise
        return pending

    async def synthesize(
        self,
        text: str,
        *,
        timeout_s: float = 60.0,
        on_status: OnStatus | None = None,
        **options: Unpack[RequestOptions],
    ) -> CompletionData:
        """Send a request and wait for its audio.

        Args:
            text: 1 to 10,000 characters.
            timeout_s: how long to wait for the completion.
            on_status: called for every state the request reaches, on the event loop.
            **options: see `RequestOptions`.

        Returns:
            The completion; `audio.url` is where the file lies.

        Raises:
            RequestInvalidError, PublishError: as `publish`.
            SpeechFailedError: the request ended without audio; `code` says why.
            SpeechTimeoutError: no end within `timeout_s`.
        """
        pending = await self.submit(text, on_status=on_status, **options)
        try:
            return await pending.completion(timeout_s=timeout_s)
        finally:
            pending.release()
            if on_status is not None:
                if pending.ended:
                    await self._followers.seen_end(pending.request_id, timeout_s=_LAST_STATUS_S)
                self._followers.drop(pending.request_id, on_status)

    async def follow(self, request_id: str) -> AsyncIterator[RequestStatus]:
        """Every state a request reaches from now on; ends with its terminal one."""
        news: asyncio.Queue[RequestStatus | Exception] = asyncio.Queue(_FOLLOW_BUFFER)

        def keep(item: RequestStatus | Exception) -> None:
            if news.full():
                news.get_nowait()  # the newest matter
            news.put_nowait(item)

        await self._listen(topics.STATUS)
        self._followers.add(request_id, keep, on_lost=keep)
        try:
            while True:
                item = await news.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if item.state.terminal:
                    return
        finally:
            self._followers.drop(request_id, keep)

    @property
    def _open_bus(self) -> Bus:
        if self._bus is None:
            raise RuntimeError("the client is not open; use `async with SpeechClient(…) as speech:`")
        return self._bus

    async def _submit(self, prepared: list[tuple[Message, Receipt]]) -> list[Pending]:
        """Submit the first of these, as many as there is room for but at least one.

        Registered first, published then: an answer can come before the broker's acknowledgement. Room is waited for
        only with empty hands, so two callers cannot keep it from each other.
        """
        pending: list[Pending] = []
        try:
            for _, receipt in prepared:
                if pending and self._completions.full:
                    break
                future = await self._completions.add(receipt.request_id)
                pending.append(Pending(receipt, future, self._completions))
            await self._open_bus.deliver(topics.REQUESTS, [message for message, _ in prepared[: len(pending)]])
            if self._recall is not None:
                ids = (one.request_id for one in pending)
                self._recall.look_for(each for each in ids if may_be_known(each, self._opened_at))
        except BaseException:
            for one in pending:
                one.release()
            raise
        return pending

    async def _listen(self, topic: str) -> None:
        async with self._listen_lock:
            if topic in self._listening:
                return
            replies = self._completions if topic == topics.COMPLETED else self._followers

            def on_lost(error: Exception) -> None:
                self._listening.discard(topic)  # the next who waits listens anew
                replies.on_lost(error)

            await self._open_bus.listen(topic, replies.on_record, on_lost)
            self._listening.add(topic)


def _checked(request: SynthesisRequested | Mapping[str, object]) -> SynthesisRequested:
    if isinstance(request, SynthesisRequested) and request.request_id:
        return request
    return draft(request.model_dump(by_alias=True) if isinstance(request, SynthesisRequested) else request)


def _prepared(request: SynthesisRequested, traceparent: str | None = None) -> tuple[Message, Receipt]:
    traceparent = traceparent or new_traceparent()
    message = encode(request, source=SOURCE, context=Context(traceparent))
    return message, Receipt(str(request.request_id), traceparent)
