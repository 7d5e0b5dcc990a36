"""The voice catalogue: which voices and dialects there are, and what each engine needs to know of a voice."""

import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.errors import UserError

_BUILT_IN = Path(__file__).with_name("voices.toml")


class Voice(BaseModel):
    """One named voice. Tables of engines stand beside the description: `engine_params["espeak"]["variant"]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    engine_params: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather_engines(cls, data: Any) -> Any:
        if isinstance(data, dict) and "engine_params" not in data:
            engines = {name: value for name, value in data.items() if name != "description"}
            return {"description": data.get("description", ""), "engine_params": engines}
        return data


class Catalogue(BaseModel):
    """All voices and dialects of an installation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dialects: dict[str, str]
    engines: dict[str, tuple[str, ...]]
    voices: dict[str, Voice] = Field(min_length=1)

    @cached_property
    def languages(self) -> frozenset[str]:
        """Every language some dialect belongs to."""
        return frozenset(self.dialects.values())

    def default_dialect(self, language: str) -> str | None:
        """The first dialect of the language in the file; None when the language is unknown."""
        return next((name for name, belongs_to in self.dialects.items() if belongs_to == language), None)

    def speaks(self, engine: str, dialect: str) -> bool:
        """Whether the engine can speak the dialect."""
        return dialect in self.engines.get(engine, ())


def load_catalogue(path: str | None = None) -> Catalogue:
    """Read a catalogue file; the built-in one when `path` is None.

    Raises:
        UserError: the file is missing or not in the form of the built-in one.
    """
    file = Path(path) if path else _BUILT_IN
    try:
        return Catalogue.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"voice catalogue {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"voice catalogue {file} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"voice catalogue {file} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"voice catalogue {file}: {where}: {first['msg']}") from None
