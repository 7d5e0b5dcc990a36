"""The table of settings, from the settings models of every stage."""

import json
from importlib import import_module
from pathlib import PurePath
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from infra.settings import CommonSettings

# Who reads it → the settings model.
_READERS = {
    "dedup": "synth_consumer.dedup.settings:Settings",
    "synth": "synth_consumer.worker.settings:WorkerSettings",
    "upload": "uploader.settings:UploaderSettings",
    "notify": "notifier.settings:NotifySettings",
    "gateway": "producers.gateway.settings:Settings",
    "commands": "producers.connection:ClientSettings",
    "up": "infra.embedded.settings:EmbeddedSettings",
}
_PLAIN: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    SecretStr: "secret",
}
_HEAD = """<!-- Made from the settings models by docs/generate.py; do not edit. -->
# Settings

Every process reads environment variables with the prefix `VOXBUS_`; `__` goes one level down. Nothing else is read:
no file, no command line. A variable that is wrong, or a name inside a group that does not exist, ends the process at
its start with a message that names it. What is in force is logged at start, secrets masked.

`voxbus up` sets what its own servers want; what stands in the environment goes to its stages.
"""


def page() -> str:
    """The Markdown text."""
    models = {reader: _load(path) for reader, path in _READERS.items()}
    sections = [_section("Every stage", _rows(CommonSettings))]
    common = set(CommonSettings.model_fields)
    groups: dict[str, dict[str, list[str]]] = {}
    for reader, model in models.items():
        for name, field in model.model_fields.items():
            if name not in common:
                for row in _field_rows(field, name):
                    groups.setdefault(name, {}).setdefault(row, []).append(reader)
    for name, rows in groups.items():
        readers = list(dict.fromkeys(reader for by in rows.values() for reader in by))
        sections.append(_section(f"`{name}`, read by {' and '.join(readers)}", list(rows)))
    return _HEAD + "".join(sections)


def _load(path: str) -> type[CommonSettings]:
    module, _, name = path.partition(":")
    model: type[CommonSettings] = getattr(import_module(module), name)
    return model


def _section(title: str, rows: list[str]) -> str:
    head = "| variable | value | default | meaning |\n|---|---|---|---|\n"
    return f"\n## {title}\n\n{head}" + "".join(rows)


def _rows(model: type[BaseModel], *path: str) -> list[str]:
    return [row for name, field in model.model_fields.items() for row in _field_rows(field, *path, name)]


def _field_rows(field: FieldInfo, *path: str) -> list[str]:
    inner = field.annotation
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        return _rows(inner, *path)
    variable = "VOXBUS_" + "__".join(path).upper()
    meaning = " ".join((field.description or "").split())
    cells = (f"`{variable}`", _kind(field), _default(field), meaning)
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"]


def _kind(field: FieldInfo) -> str:
    signs = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}
    bounds = [
        f"{sign} {getattr(bound, kind.__name__.lower())}"
        for bound in field.metadata
        for kind, sign in signs.items()
        if isinstance(bound, kind)
    ]
    return ", ".join([_type_name(field.annotation), *bounds])


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in arguments).replace("\\|", "|")
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(_type_name(each) for each in arguments if each is not type(None)))
    if origin is not None:
        return "JSON object" if origin is dict else "JSON list"
    plain: dict[Any, str] = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        SecretStr: "secret",
    }
    if annotation in plain:
        return plain[annotation]
    if isinstance(annotation, type) and issubclass(annotation, PurePath):
        return "path"
    return getattr(annotation, "__name__", str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value == "":
        return "(none)"
    if isinstance(value, bool | list | tuple | dict):
        return f"`{json.dumps(value, default=str)}`"
    return f"`{value}`"
