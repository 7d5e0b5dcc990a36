"""Settings as environment variables, for processes that a test starts."""

import os
from collections.abc import Mapping

from pydantic import BaseModel, SecretStr


def variables(**fragments: BaseModel) -> dict[str, str]:
    """`variables(kafka=KafkaSettings(…))` → `{"VOXBUS_KAFKA__BOOTSTRAP_SERVERS": …}`, without absent values."""
    found: dict[str, str] = {}
    for name, fragment in fragments.items():
        for field, value in fragment:
            if value is not None:
                plain = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
                found[f"VOXBUS_{name}__{field}".upper()] = plain
    return found


def environment(extra: Mapping[str, str] | None = None, **fragments: BaseModel) -> dict[str, str]:
    """The environment for a child process: this one's without its VOXBUS_ variables, and the fragments'."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VOXBUS_")}
    return {**inherited, **variables(**fragments), **(extra or {})}
