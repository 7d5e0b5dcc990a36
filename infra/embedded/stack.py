"""The stack as a whole: which children in which order, over which data directory."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from infra.embedded import janitor, process, servers
from infra.embedded.credentials import signing_secret
from infra.embedded.endpoints import Endpoints, as_environment, kafka_settings
from infra.embedded.files import DataDirectory
from infra.embedded.ports import NoFreePortError, PortBook
from infra.embedded.settings import EmbeddedSettings
from infra.embedded.stages import SIGNING_SECRET, Stage, StageOptions, installed_stages, stage_specs
from infra.embedded.state import StateFile
from infra.embedded.supervisor import ChildView, Listener, Supervisor
from infra.errors import UserError
from infra.kafka.topics import ensure_topics
from infra.settings import load


@dataclass(frozen=True, slots=True)
class RunningStack:
    """All that was asked for answers; more can be started beside it."""

    directory: DataDirectory
    ports: PortBook
    supervisor: Supervisor
    endpoints: Endpoints


@asynccontextmanager
async def running_servers(
    data_dir: Path, *, storage: servers.Storage = "s3", listener: Listener = lambda _: None
) -> AsyncIterator[RunningStack]:
    """Run the three servers while the block runs; everything that was started with the supervisor ends with it.

    Raises:
        UserError: another stack runs over the directory, a binary is missing, or a server does not come up.
    """
    directory = DataDirectory.prepared(data_dir)
    with directory.locked() as lock:
        ports = PortBook(directory.ports)
        try:
            planned = servers.plan(directory, ports, storage=storage)
        except NoFreePortError as error:
            raise UserError(str(error)) from None
        async with process.guardian() as guard:
            state = StateFile(directory.state)

            def changed(view: ChildView) -> None:
                state.update(view)
                listener(view)

            supervisor = Supervisor(guard, listener=changed, lock=lock)
            try:
                await supervisor.start(planned.specs)
                yield RunningStack(directory, ports, supervisor, _endpoints(directory, planned))
            finally:
                directory.endpoints.unlink(missing_ok=True)
                await supervisor.stop()


Planner = Callable[[RunningStack, StageOptions], Sequence[Stage]]


def installed(running: RunningStack, options: StageOptions) -> Sequence[Stage]:
    """The stages of this installation, with the data directory's own signing secret."""
    secret = signing_secret(running.directory.signing_secret)
    return installed_stages(running.directory, running.ports, options, signing_secret=secret)


@asynccontextmanager
async def running_stack(
    data_dir: Path,
    options: StageOptions,
    *,
    listener: Listener = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    plan_stages: Planner = installed,
) -> AsyncIterator[RunningStack]:
    """Run servers and stages while the block runs.

    Args:
        data_dir: a second run over it goes on where the first ended.
        options: of the command line.
        listener: told of every change of a child.
        note: told what else people should know.
        plan_stages: other stages than the installed ones, for tests.

    Raises:
        UserError: see `running_servers`; or a stage does not come up.
    """
    # Half a second of importing, done while the servers start.
    storage_client = asyncio.create_task(asyncio.to_thread(import_module, "aiobotocore.session"))
    async with running_servers(data_dir, listener=listener) as running:
        await storage_client
        try:
            stages = plan_stages(running, options)
        except NoFreePortError as error:
            raise UserError(f"{error}; choose another with --port, or 0 for a free one") from None
        addresses = as_environment(running.endpoints)
        bus = kafka_settings({**os.environ, **addresses})
        embedded = load(EmbeddedSettings).embedded
        if told := await janitor.tidy(running.endpoints, bus, bound_bytes=embedded.audio_topic_bytes):
            note(told)
        await ensure_topics(bus)
        specs = stage_specs(
            stages,
            running.directory,
            running.ports,
            addresses=addresses,
            options=options,
            start_timeout_s=embedded.start_timeout_s,
        )
        await running.supervisor.start(specs)
        yield replace(running, endpoints=_with_stages(running, stages))


def _with_stages(running: RunningStack, stages: Sequence[Stage]) -> Endpoints:
    listening = {name: port for stage in stages for name, port in stage.ports.items()}
    web, gateway = listening.get("VOXBUS_DEDUP__WEB_PORT"), listening.get("VOXBUS_GATEWAY__PORT")
    return running.endpoints.model_copy(
        update={
            "dedup_web": f"http://127.0.0.1:{web}" if web else None,
            "gateway": f"http://127.0.0.1:{gateway}" if gateway else None,
            "signing_secret_file": None if SIGNING_SECRET in os.environ else str(running.directory.signing_secret),
            "health": {
                stage.name: f"http://127.0.0.1:{running.ports.known(f'{stage.name}.health')}" for stage in stages
            },
        }
    )


@asynccontextmanager
async def embedded_servers(data_dir: Path, *, storage: servers.Storage = "s3") -> AsyncIterator[Endpoints]:
    """Kafka, Redis and S3 for tests, without stages.

    Args:
        data_dir: a second run over it goes on where the first ended (`storage="s3"`).
        storage: where the bus keeps its log; `memory` is a little quicker and forgets.

    Raises:
        UserError: see `running_servers`.
    """
    async with running_servers(data_dir, storage=storage) as running:
        yield running.endpoints


def _endpoints(directory: DataDirectory, planned: servers.Servers) -> Endpoints:
    return Endpoints(
        kafka=planned.kafka,
        redis=planned.redis,
        s3=planned.s3,
        s3_bucket=servers.MEDIA_BUCKET,
        s3_credentials_file=str(planned.credentials_file),
        data_dir=str(directory.root),
        logs=str(directory.logs),
    )
