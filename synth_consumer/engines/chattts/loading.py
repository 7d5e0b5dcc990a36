"""Brings the ChatTTS package and its weights into memory."""

import copy
import importlib
import json
import logging
import sys
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from synth_consumer.engines.chattts.assets import OVERRIDES, Assets
from synth_consumer.engines.protocol import EngineUnavailableError

# The package logs the texts it is given; nothing of them may reach our log.
_SILENT = logging.getLogger("synth_consumer.engines.chattts.package")


def import_package() -> ModuleType:
    """Import `ChatTTS` (6 to 15 s the first time).

    Raises:
        EngineUnavailableError: it, or something it needs, is not installed.
    """
    try:
        _spare_torchaudio_its_extension()
        return importlib.import_module("ChatTTS")
    except ModuleNotFoundError as error:
        raise EngineUnavailableError(
            f"the chattts engine needs {error.name}, which is not installed; "
            "install it with: pip install 'voxbus[chattts]' (ChatTTS is licensed AGPL-3.0-or-later)"
        ) from None


def _spare_torchaudio_its_extension() -> None:
    """Let torchaudio import beside a torch without CUDA.

    PyPI's torchaudio links its extension against CUDA and fails to import without it. ChatTTS uses only its
    MelSpectrogram, which is plain Python: torchaudio itself does without the extension where the files are absent, so
    tell it that they are.
    """
    torch = importlib.import_module("torch")
    if torch.version.cuda is not None or torch.version.hip is not None or "torchaudio" in sys.modules:
        return
    absent = ModuleType("torchaudio._extension")
    vars(absent).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=lambda function: function,
    )
    sys.modules[absent.__name__] = absent


def load_chat(assets: Assets, device: str, threads: int | None = None) -> Any:
    """A loaded `ChatTTS.Chat`.

    Args:
        assets: complete files.
        device: "auto", or what `torch.device` takes.
        threads: of the CPU, for the whole process; torch's own choice when None.

    Raises:
        EngineUnavailableError: a package is missing, the device is not there, or the files do not fit together.
    """
    package = import_package()
    torch = importlib.import_module("torch")
    if threads is not None:
        torch.set_num_threads(threads)
    _SILENT.setLevel(logging.CRITICAL + 1)
    chat = package.Chat(_SILENT)
    chat.config = _configuration(chat.config, assets.folder)
    chat.sha256_map = assets.sha256
    try:
        loaded = chat.load(source="custom", custom_path=str(assets.folder), device=torch.device(_device(device, torch)))
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        raise EngineUnavailableError(f"ChatTTS does not load the weights in {assets.folder}: {error}") from error
    if not loaded:
        raise EngineUnavailableError(f"ChatTTS does not load the weights in {assets.folder}")
    return chat


def _device(name: str, torch: Any) -> str:
    if name != "auto":
        return name
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _configuration(defaults: Any, folder: Path) -> Any:
    # The package's nested defaults are shared by every Config, so a copy is changed.
    config = copy.deepcopy(defaults)
    path = folder / OVERRIDES
    if path.is_file():
        try:
            override(config, json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, AttributeError) as error:
            raise EngineUnavailableError(f"{path} does not fit ChatTTS's configuration: {error}") from None
    return config


def override(config: Any, values: dict[str, Any]) -> None:
    """Put nested values over a configuration of the package, in place.

    Raises:
        AttributeError: the package knows no such value.
    """
    for key, value in values.items():
        current = getattr(config, key)
        if is_dataclass(current):
            override(current, value)
        else:
            setattr(config, key, value)
