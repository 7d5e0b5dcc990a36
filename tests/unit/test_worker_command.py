"""What `voxbus synth` shows without any server."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.settings import SettingsError
from synth_consumer.worker.__main__ import synth
from tests.unit.test_worker_plan import fake_nvidia_smi


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("VOXBUS_")]:
        monkeypatch.delenv(name)


def test_the_plan_is_shown() -> None:
    env = {"VOXBUS_SYNTH__ENGINE": "tone", "VOXBUS_SYNTH__SLOTS": "2", "VOXBUS_SYNTH__LANES": "3"}
    result = CliRunner().invoke(synth, ["--plan"], env=env)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "slot 0: tone on cpu, lanes: 3",
        "slot 1: tone on cpu, lanes: 3",
        "because: VOXBUS_SYNTH__SLOTS=2",
    ]


def test_the_plan_tells_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch, 'echo "0, GPU-x, NVIDIA T4, 14000"')
    result = CliRunner().invoke(synth, ["--plan"], env={"VOXBUS_SYNTH__ENGINE": "chattts"})
    assert result.exit_code == 0
    measured, slot, because = result.output.splitlines()
    assert measured.startswith("cuda:0 NVIDIA T4: 14000 MB free; weights ")
    assert measured.endswith(" MB a lane; 1 slots of 29 lanes")
    assert slot == "slot 0: chattts on cuda:0 NVIDIA T4, lanes: 29"
    assert because == "because: cuda:0 NVIDIA T4 (14000 MB free) holds 1 slots of 29 lanes"


def test_a_wrong_setting_is_named() -> None:
    result = CliRunner().invoke(synth, ["--plan"], env={"VOXBUS_SYNTH__SLOTS": "none"})
    assert isinstance(result.exception, SettingsError)
    assert "VOXBUS_SYNTH__SLOTS" in str(result.exception)


def test_help_shows_examples() -> None:
    assert "voxbus synth --plan" in CliRunner().invoke(synth, ["--help"]).output
