"""What `voxbus synth` shows without any server."""

import pytest
from click.testing import CliRunner

from infra.settings import SettingsError
from synth_consumer.worker.__main__ import synth


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


def test_a_wrong_setting_is_named() -> None:
    result = CliRunner().invoke(synth, ["--plan"], env={"VOXBUS_SYNTH__SLOTS": "none"})
    assert isinstance(result.exception, SettingsError)
    assert "VOXBUS_SYNTH__SLOTS" in str(result.exception)


def test_help_shows_examples() -> None:
    assert "voxbus synth --plan" in CliRunner().invoke(synth, ["--help"]).output
