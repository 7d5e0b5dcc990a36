"""Faust on this project's bus: its app from our settings, and corrections to its Kafka consumer.

Read in faust-streaming 0.15.3, `faust/transport/`: a fetch waits 1.5 s, written into the source, which a broker that
waits it out turns into 1.5 s a hop; a poll empties one partition before it looks at the next; a rebalance forgets
acknowledged offsets before it commits them, so that every joining worker makes all others do their last events again;
the check for idle partitions reports healthy ones; where a changelog ends is asked with ListOffsets, which the
embedded broker answers too low: rows would stay away; and records read while the flow is suspended count as read.
"""

import ssl
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faust
from aiokafka.partitioner import DefaultPartitioner
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from yarl import URL

from infra.kafka.ends import end_offsets
from infra.kafka.patience import fetch_patiently
from infra.settings import KafkaSettings
from synth_consumer.dedup.settings import DedupSettings
from synth_consumer.dedup.tables import ChangelogTable

GROUP = "voxbus.dedup"
_TOPIC_SHARE = 128  # records of one topic a poll takes


class PromptThread(AIOKafkaConsumerThread):  # type: ignore[misc]
    """Fetches with the wait the settings name, and takes the ends of changelogs from a fetch."""

    mundane_level = "debug"
    kafka: KafkaSettings

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = self.kafka.fetch_max_wait_ms
        fetch_patiently(consumer)
        return consumer

    async def seek_to_committed(self) -> Any:
        """Called before a new assignment is read: what was read ahead of it and not worked on must come again."""
        committed = await super().seek_to_committed()
        changelogs = self.app.tables.changelog_topics  # Faust seeks these itself, and copies go on being read
        sources = {tp: offset for tp, offset in committed.items() if tp.topic not in changelogs}
        await self.call_thread(rewind_never_committed, self._ensure_consumer(), sources)
        return committed

    async def _fetch_records(
        self, consumer: Any, active_partitions: Any, timeout: float | None = None, max_records: int | None = None
    ) -> Any:
        # An equal share of each topic that has records, instead of aiokafka's first partition until it is empty: ten
        # thousand waiting requests do not keep the outcomes, or the requests just admitted, from being read.
        waiting = [tp for tp in list(consumer._fetcher._records) if tp in active_partitions]
        per_topic = Counter(tp.topic for tp in waiting)
        taken: dict[Any, Any] = {}
        for tp in waiting:
            share = max(1, _TOPIC_SHARE // per_topic[tp.topic])
            taken |= await super()._fetch_records(consumer, {tp}, timeout=0, max_records=share)
        return taken or await super()._fetch_records(consumer, active_partitions, timeout, _TOPIC_SHARE)

    async def _highwaters(self, partitions: Any) -> dict[Any, int]:
        return dict(await end_offsets(self.kafka, list(partitions)))


async def rewind_never_committed(consumer: Any, committed: Mapping[Any, int | None]) -> None:
    """Begin anew where nothing is committed.

    aiokafka's `seek_to_committed` leaves such a partition where it has been read to, and Faust reads ahead while its
    flow is suspended: it throws those records away, relying on that seek. Without this they are never worked on, and
    the first commit of a later one moves past them.

    Args:
        consumer: started, with these partitions assigned.
        committed: what the group has committed for each partition; None, or 0, when nothing.
    """
    fresh = [partition for partition, offset in committed.items() if not offset]
    if fresh:
        await consumer.seek_to_beginning(*fresh)


class CarefulConsumer(Consumer):  # type: ignore[misc]
    """Finishes and commits what is in hand before partitions are given back."""

    mundane_level = "debug"
    kafka: KafkaSettings

    def _new_consumer_thread(self) -> Any:
        thread = PromptThread(self, loop=self.loop, beacon=self.beacon)
        thread.kafka = self.kafka
        return thread

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Called in the app's loop before each rebalance; heartbeats go on in the consumer's own thread."""
        await self.finish_in_hand()
        await super().on_partitions_revoked(revoked)

    async def finish_in_hand(self) -> None:
        """Take no more events, wait for those begun, commit."""
        self.stop_flow()
        self.app.flow_control.suspend()
        self.app.flow_control.clear()
        await self.wait_empty()

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Idle is not slow: lag is measured elsewhere."""


def _credentials(settings: KafkaSettings) -> Any:
    context = None
    if settings.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    if settings.security_protocol.startswith("SASL"):
        password = settings.sasl_password.get_secret_value() if settings.sasl_password else None
        return faust.SASLCredentials(
            username=settings.sasl_username,
            password=password,
            mechanism=settings.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


def new_app(kafka: KafkaSettings, dedup: DedupSettings, *, partitions: int, web_url: str, data_dir: Path) -> Any:
    """The Faust app, not started.

    Args:
        kafka: the bus.
        dedup: store, commit interval, standbys.
        partitions: of every source topic, hence of every table.
        web_url: where other workers reach this one's views.
        data_dir: for RocksDB; Faust makes its folder even when rows live in memory.
    """
    brokers = [URL(f"kafka://{address.strip()}") for address in kafka.bootstrap_servers.split(",")]
    app = faust.App(
        kafka.namespace + GROUP,
        broker=brokers,
        broker_credentials=_credentials(kafka),
        broker_client_id=GROUP,
        broker_session_timeout=kafka.session_timeout_ms / 1000,
        broker_heartbeat_interval=kafka.heartbeat_interval_ms / 1000,
        broker_rebalance_timeout=kafka.rebalance_timeout_ms / 1000,
        broker_request_timeout=max(kafka.request_timeout_ms, kafka.session_timeout_ms + 1_000) / 1000,
        broker_commit_interval=dedup.commit_interval_s,
        broker_commit_every=None,
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        producer_linger=kafka.linger_ms / 1000,
        producer_max_batch_size=262_144,  # as in infra.kafka.clients
        producer_partitioner=DefaultPartitioner(),
        producer_request_timeout=kafka.request_timeout_ms / 1000,
        store="rocksdb://" if dedup.store == "rocksdb" else "memory://",
        datadir=str(data_dir),
        table_standby_replicas=dedup.standby_replicas,
        topic_partitions=partitions,
        topic_replication_factor=kafka.replication_factor,
        topic_disable_leader=True,
        stream_wait_empty=True,
        stream_buffer_maxsize=1_000,
        web_enabled=False,
        canonical_url=web_url,
        autodiscover=False,
        cython_optimizations=True,
        Table=ChangelogTable,
    )

    class OurConsumer(CarefulConsumer):
        pass

    class OurTransport(Transport):  # type: ignore[misc]
        Consumer = OurConsumer

    OurConsumer.kafka = kafka

    app.transport = OurTransport(brokers, app)
    # Beyond 100 waiting changelog messages Faust stops reading and polls every 0.1 s. What is in hand is bounded here.
    app.producer.buffer.max_messages = 1_000_000
    return app
