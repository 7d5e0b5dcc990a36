"""The weights' files: which there must be, and their hashes. Imports no torch."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from synth_consumer.engines.protocol import EngineUnavailableError

_FILES = (
    "asset/Decoder.safetensors",
    "asset/DVAE.safetensors",
    "asset/Embed.safetensors",
    "asset/Vocos.safetensors",
    "asset/gpt/config.json",
    "asset/gpt/model.safetensors",
    "asset/tokenizer/special_tokens_map.json",
    "asset/tokenizer/tokenizer.json",
    "asset/tokenizer/tokenizer_config.json",
)
# Where a model differs in shape from the published one: values to put over the package's own configuration.
OVERRIDES = "asset/config.json"
_SETTING = "VOXBUS_SYNTH__CHATTTS__ASSETS"


@dataclass(frozen=True, slots=True)
class Assets:
    """A complete set of files."""

    folder: Path
    sha256: dict[str, str]  # by the keys of the package's own map, "sha256_asset_gpt_config_json"
    digest: str  # of all files, 8 hex digits


def find_assets(folder: str | None) -> Assets:
    """Check that every file is there, and hash them (a second or two for the published weights).

    Raises:
        EngineUnavailableError: no folder is set, or files are missing; says which, where, and how to get them.
    """
    if folder is None:
        raise EngineUnavailableError(
            f"ChatTTS has no weights: {_SETTING} is not set. Set it to the folder that holds `asset/` with all of: "
            f"{', '.join(_FILES)}. " + _how_to_fetch("FOLDER")
        )
    root = Path(folder).expanduser().absolute()
    if missing := [name for name in _FILES if not (root / name).is_file()]:
        raise EngineUnavailableError(
            f"ChatTTS lacks {len(missing)} of its {len(_FILES)} files of weights. Expected in {root} ({_SETTING}), "
            f"and missing there: {', '.join(missing)}. {_how_to_fetch(str(root))}"
        )
    hashes = {name: _sha256(root / name) for name in _FILES}
    overrides = _sha256(root / OVERRIDES) if (root / OVERRIDES).is_file() else ""
    digest = hashlib.sha256("".join([*hashes.values(), overrides]).encode()).hexdigest()[:8]
    keys = {"sha256_" + name.replace("/", "_").replace(".", "_"): value for name, value in hashes.items()}
    return Assets(root, keys, digest)


def _how_to_fetch(folder: str) -> str:
    return (
        f"Fetch them with: hf download 2Noise/ChatTTS --include 'asset/*' --local-dir '{folder}' "
        "(1.2 GB; the weights are licensed CC BY-NC 4.0, not for commercial use; the ChatTTS code AGPL-3.0-or-later). "
        "voxbus downloads nothing by itself."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
