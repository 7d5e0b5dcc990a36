"""Settings of the engines; the worker puts them under `VOXBUS_SYNTH__TONE__…`, `…__ESPEAK__…`, `…__CHATTTS__…`."""

from typing import Literal

from pydantic import Field

from infra.settings import EngineSettings, Fragment


class ToneSettings(Fragment):
    """Test tones in place of speech: load tests and fault tests."""

    lanes: int = Field(default=8, ge=1, le=256)
    """Takes spoken at once."""
    realtime_factor: float = Field(default=0.0, ge=0, le=100)
    """Seconds of work that one second of audio costs, all lanes together. 0: as fast as can be."""
    chars_per_second: float = Field(default=5.0, gt=0, le=100)
    """Pace in Chinese characters; a Latin letter takes a third of the time of one."""
    faults: bool = False
    """Obey fault markers in texts, such as ⟦crash⟧. For tests only."""


class EspeakSettings(Fragment):
    """espeak-ng through its C library (GPL-3.0-or-later, installed by the extra `synth`)."""

    lanes: int = Field(default=2, ge=1, le=64)
    """Takes spoken at once; they take turns, as the library speaks one sentence at a time."""
    volume: int = Field(default=80, ge=10, le=100)
    """Loudness in espeak's own percent. At 100 loud vowels reach the limit of 16 bits."""
    sentence_timeout_s: int = Field(default=30, ge=1, le=600)
    """Bound of speaking one sentence, which takes some milliseconds. Past it the take fails."""


class ChatttsSettings(Fragment):
    """ChatTTS (code AGPL-3.0-or-later, weights CC BY-NC 4.0; extra `chattts`)."""

    assets: str | None = None
    """The folder that holds `asset/` with the weights. Nothing is ever downloaded."""
    device: Literal["auto", "cpu"] | str = "auto"
    """`cpu`, `cuda`, `cuda:1`, …; auto takes the first GPU where there is one."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of one slot. Absent: torch's own choice, one per core, which is too many beside other slots."""
    lanes: int | None = Field(default=None, ge=1, le=64)
    """Takes decoded at once, a token each per step. More lanes make more audio a second, and each take slower. Absent:
    as many as the device's free memory holds, at most 64."""
    precision: Literal["exact", "int8", "bfloat16", "float16"] = "exact"
    """`exact` is float32, the package's own tokens. The others are not exact and say other things at times: `int8` is
    faster on a CPU and takes a quarter of the weights' memory, `bfloat16` and `float16` are for GPUs."""
    allow_control_tokens: bool = False
    """Obey [laugh], [uv_break], [v_break] and [lbreak] in texts. Else users' brackets are brackets."""
    early_sound: bool = True
    """Tell the first 0.16 s of a sentence after 14 tokens instead of 61; the end of it differs a little from exact."""
    max_sentence_s: float = Field(default=25.0, ge=3, le=30)
    """Text is split below this many seconds of speech; beyond about 30 s the model's speech degrades."""


class EnginesSettings(EngineSettings):
    """The chosen engine and the settings of each."""

    tone: ToneSettings = ToneSettings()
    espeak: EspeakSettings = EspeakSettings()
    chattts: ChatttsSettings = ChatttsSettings()
