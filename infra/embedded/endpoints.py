"""Where a running stack answers: the line `voxbus up` prints, the file it leaves, the settings a client makes of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.embedded.credentials import s3_credentials
from infra.embedded.files import write_atomically
from infra.errors import UserError
from infra.settings import KafkaSettings, SettingsError

DEFAULT_PATH = Path(".voxbus/endpoints.json")
# Tansu answers a fetch only when its wait is over; 20 ms is the middle between a slow hop and an idle burn.
FETCH_MAX_WAIT_MS = 20
_KAFKA = "VOXBUS_KAFKA__"


class Endpoints(BaseModel):
    """Addresses of one running embedded stack."""

    model_config = ConfigDict(frozen=True)

    event: Literal["ready"] = "ready"
    gateway: str | None = None
    """Base URL; absent while no gateway runs."""
    kafka: str
    """host:port."""
    redis: str
    """redis:// URL."""
    s3: str
    """Base URL of the S3 door."""
    dedup_web: str | None = None
    """Base URL of the Faust web views."""
    s3_bucket: str
    s3_region: str = "us-east-1"
    s3_credentials_file: str
    """JSON in the form of SeaweedFS, readable by the owner only."""
    signing_secret_file: str | None = None
    """The webhooks' secret; absent when VOXBUS_NOTIFIER__SIGNING_SECRET of the environment is used."""
    data_dir: str
    logs: str
    """Folder with one log for each server and stage."""
    health: dict[str, str] = {}
    """Base URL of each stage's /healthz, /readyz and /metrics."""

    def line(self) -> str:
        """One JSON line."""
        return self.model_dump_json()

    def write(self, path: Path) -> None:
        """Leave it for other commands."""
        write_atomically(path, self.line() + "\n")


def load(path: Path = DEFAULT_PATH) -> Endpoints:
    """Read what a running stack left.

    Raises:
        UserError: there is none.
    """
    try:
        return Endpoints.model_validate_json(path.read_text())
    except OSError:
        raise UserError(f"no running stack found at {path}: start one with `voxbus up`") from None
    except ValidationError:
        raise UserError(f"{path} is not an endpoints file of `voxbus up`; start the stack again") from None


def as_environment(endpoints: Endpoints) -> dict[str, str]:
    """The `VOXBUS_` variables a client or stage on this machine needs to reach the stack.

    Raises:
        UserError: the credentials file is gone.
    """
    path = Path(endpoints.s3_credentials_file)
    if not path.exists():
        raise UserError(f"{path} is missing: the data directory was moved or cleared; start the stack again")
    credentials = s3_credentials(path)
    return {
        "VOXBUS_KAFKA__BOOTSTRAP_SERVERS": endpoints.kafka,
        "VOXBUS_KAFKA__SECURITY_PROTOCOL": "PLAINTEXT",
        "VOXBUS_KAFKA__ENABLE_IDEMPOTENCE": "false",
        "VOXBUS_KAFKA__FETCH_MAX_WAIT_MS": str(FETCH_MAX_WAIT_MS),
        # A join waits about half the session: 6 s start a member in 3 s.
        "VOXBUS_KAFKA__SESSION_TIMEOUT_MS": "6000",
        "VOXBUS_KAFKA__HEARTBEAT_INTERVAL_MS": "1500",
        "VOXBUS_REDIS__URL": endpoints.redis,
        "VOXBUS_S3__ENDPOINT_URL": endpoints.s3,
        "VOXBUS_S3__BUCKET": endpoints.s3_bucket,
        "VOXBUS_S3__REGION": endpoints.s3_region,
        "VOXBUS_S3__ACCESS_KEY_ID": credentials.access_key_id,
        "VOXBUS_S3__SECRET_ACCESS_KEY": credentials.secret_access_key,
        "VOXBUS_S3__CREATE_BUCKET": "true",
    }


def kafka_settings(environment: Mapping[str, str]) -> KafkaSettings:
    """The bus's settings out of variables that are not (yet) this process's own.

    Raises:
        SettingsError: one of them is not valid.
    """
    given = {name: value for name, value in environment.items() if name.startswith(_KAFKA)}
    try:
        return KafkaSettings.model_validate({name.removeprefix(_KAFKA).lower(): value for name, value in given.items()})
    except ValidationError as error:
        lines = [f"  {_KAFKA}{'__'.join(str(p) for p in e['loc']).upper()}: {e['msg']}" for e in error.errors()]
        raise SettingsError("settings are not valid:\n" + "\n".join(lines)) from None
