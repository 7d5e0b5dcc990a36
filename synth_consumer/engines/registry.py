"""Names of engines, and how to make one.

A module of an engine is imported by name, only when that engine is asked for: no other part of voxbus then depends
on torch, not even through this module (import-linter looks).
"""

from importlib import import_module
from typing import Protocol, cast

from infra.voices import Catalogue, load_catalogue
from synth_consumer.engines.protocol import SpeechEngine
from synth_consumer.engines.settings import EnginesSettings


class _Factory(Protocol):
    def __call__(self, settings: EnginesSettings, catalogue: Catalogue, lanes: int | None) -> SpeechEngine: ...


# Module below this package, with a function `make` of the shape above.
_MODULES = {"tone": "tone", "espeak": "espeak.engine", "chattts": "chattts.engine"}
ENGINE_NAMES = tuple(_MODULES)


def create(name: str, settings: EnginesSettings, lanes: int | None = None) -> SpeechEngine:
    """Make an engine; nothing is loaded until its `load()`.

    Args:
        name: one of `ENGINE_NAMES`.
        settings: of every engine; the named one reads its own part.
        lanes: takes held at once; the engine's own setting when None.

    Raises:
        ValueError: no engine has that name.
        UserError: the voice catalogue cannot be read.
    """
    if name not in _MODULES:
        raise ValueError(f"no engine is named {name!r}; there are: {', '.join(ENGINE_NAMES)}")
    catalogue = load_catalogue(settings.voices_file)
    module = import_module(f"{__package__}.{_MODULES[name]}")
    return cast("_Factory", module.make)(settings, catalogue, lanes)
