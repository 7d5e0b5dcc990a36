"""Environment variables as the settings models see them: their names, and which are not readable."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def variable_name(path: tuple[int | str, ...]) -> str:
    """`("kafka", "partitions")` as `VOXBUS_KAFKA__PARTITIONS`."""
    return "VOXBUS_" + "__".join(str(part) for part in path).upper()


def unreadable(model: type[BaseModel], environment: Mapping[str, str]) -> list[str]:
    """One line for each variable that must be JSON and is not. pydantic-settings names the group alone."""
    wrong = []
    for name, value in sorted(environment.items()):
        path = name.lower().removeprefix("voxbus_").split("__")
        kind = _kind_of(model, path) if name.upper().startswith("VOXBUS_") else None
        if kind is None or _is_json(value):
            continue
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            leaf = next(iter(kind.model_fields))
            wrong.append(f"{name}: is a group of settings; set one of it, such as {variable_name((*path, leaf))}")
        else:
            wrong.append(f"{name}: must be JSON, such as [5, 60]")
    return wrong or ["a variable is not readable JSON"]


def _kind_of(model: type[BaseModel], path: list[str]) -> Any:
    """The type at a path of field names, where it is written as JSON; None: there is none, or it is plain text."""
    kind: Any = model
    for name in path:
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)) or name not in kind.model_fields:
            return None
        kind = kind.model_fields[name].annotation
    composed = isinstance(kind, type) and issubclass(kind, BaseModel)
    return kind if composed or getattr(kind, "__origin__", None) in {tuple, list, dict, set, frozenset} else None


def _is_json(value: str) -> bool:
    try:
        json.loads(value)
    except ValueError:
        return False
    return True
