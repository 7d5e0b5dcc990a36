"""Servers that run already: the usual `VOXBUS_KAFKA__…`, `VOXBUS_REDIS__…` and `VOXBUS_S3__…` variables name them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.settings import CommonSettings, load
from tests.backends.servers import Servers


@contextmanager
def servers(_folder: Path) -> Iterator[Servers]:
    """Nothing to start, nothing to stop."""
    settings = load(CommonSettings)
    yield Servers(settings.kafka, settings.redis, settings.s3)
