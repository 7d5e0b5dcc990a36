"""Making engines by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import UserError
from synth_consumer.engines.protocol import EngineUnavailableError
from synth_consumer.engines.registry import ENGINE_NAMES, create
from synth_consumer.engines.settings import ChatttsSettings, EnginesSettings


@pytest.mark.parametrize("name", ENGINE_NAMES)
def test_every_engine_can_be_made_anywhere(name: str) -> None:
    made = create(name, EnginesSettings(), lanes=5)

    assert made.name == name
    assert made.lanes == 5


def test_an_unknown_name_is_answered_with_the_known() -> None:
    with pytest.raises(ValueError, match="tone, espeak, chattts"):
        create("festival", EnginesSettings())


def test_a_missing_catalogue_is_told() -> None:
    with pytest.raises(UserError, match=r"nowhere\.toml"):
        create("tone", EnginesSettings(voices_file="/nowhere.toml"))


def test_importing_the_registry_and_making_an_engine_imports_no_torch() -> None:
    program = (
        "import sys; from synth_consumer.engines import registry, settings; "
        "[registry.create(name, settings.EnginesSettings()) for name in registry.ENGINE_NAMES]; "
        "assert not {'torch', 'ChatTTS', 'wetext'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_weights_that_are_not_set_are_told_with_the_command_and_the_licence() -> None:
    with pytest.raises(EngineUnavailableError) as error:
        create("chattts", EnginesSettings()).load()

    message = str(error.value)
    assert "VOXBUS_SYNTH__CHATTTS__ASSETS" in message
    assert "hf download 2Noise/ChatTTS" in message
    assert "CC BY-NC 4.0" in message
    assert "AGPL-3.0" in message
    assert "asset/Vocos.safetensors" in message
    assert "asset/tokenizer/tokenizer_config.json" in message


def test_missing_files_are_named_with_their_folder(tmp_path: Path) -> None:
    (tmp_path / "asset" / "gpt").mkdir(parents=True)
    (tmp_path / "asset" / "gpt" / "config.json").write_text("{}")

    with pytest.raises(EngineUnavailableError) as error:
        create("chattts", EnginesSettings(chattts=ChatttsSettings(assets=str(tmp_path)))).load()

    message = str(error.value)
    assert str(tmp_path) in message
    assert "lacks 8 of its 9 files" in message
    assert "asset/Vocos.safetensors" in message
    assert "asset/gpt/config.json" not in message
