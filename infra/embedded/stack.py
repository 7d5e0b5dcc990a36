"""The stack as a whole: which children in which order, over which data directory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.embedded import process, servers
from infra.embedded.endpoints import Endpoints
from infra.embedded.files import DataDirectory
from infra.embedded.ports import NoFreePortError, PortBook
from infra.embedded.supervisor import Listener, Supervisor
from infra.errors import UserError


@dataclass(frozen=True, slots=True)
class RunningServers:
    """The servers answer; stages can be started beside them."""

    directory: DataDirectory
    ports: PortBook
    supervisor: Supervisor
    endpoints: Endpoints


@asynccontextmanager
async def running_servers(
    data_dir: Path, *, storage: servers.Storage = "s3", listener: Listener = lambda _: None
) -> AsyncIterator[RunningServers]:
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
            supervisor = Supervisor(guard, listener=listener, lock=lock)
            try:
                await supervisor.start(planned.specs)
                yield RunningServers(directory, ports, supervisor, _endpoints(directory, planned))
            finally:
                directory.endpoints.unlink(missing_ok=True)
                await supervisor.stop()


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
