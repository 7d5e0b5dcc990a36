"""The same bytes for the same seed, whatever the lanes and the process; and the published size against the package."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.voices import load_catalogue
from synth_consumer.engines.chattts.engine import ChatttsEngine
from synth_consumer.engines.protocol import TakeFinished
from synth_consumer.engines.settings import ChatttsSettings
from tests.chattts_assets import write_assets
from tests.chattts_oracle import Line, ours, theirs
from tests.engine_driver import EN, ZH, drive, task

pytestmark = pytest.mark.chattts

TASKS = [task(f"t{n}", (ZH, EN, "好。")[n % 3], seed=n, voice=("female1", "male2")[n % 2]) for n in range(18)]
# Eight different ones twice, so that 16 lanes are full; short, as a token costs the package some 70 ms.
LINES = [Line("你好，今天天气很好。" * (n % 3 + 1), n, most=6 + n % 3, fewest=6 + n % 3) for n in range(8)]


@pytest.fixture(autouse=True, scope="module")
def threads_as_they_were() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def digests(folder: Path, lanes: int) -> dict[str, str]:
    """A hash of all bytes of each take."""
    engine = ChatttsEngine(ChatttsSettings(assets=str(folder), device="cpu", threads=2), load_catalogue(), lanes=lanes)
    engine.load()
    outcomes = drive(engine, TASKS)
    assert all(outcome.ends == [TakeFinished(name)] for name, outcome in outcomes.items())
    return {name: hashlib.sha256(outcome.pcm.tobytes()).hexdigest() for name, outcome in outcomes.items()}


def test_the_same_bytes_whatever_the_lanes_and_in_a_fresh_process(tmp_path: Path) -> None:
    folder = write_assets(tmp_path)
    alone = digests(folder, 1)
    program = "import sys, json, pathlib; from tests.integration.test_engine_exact import digests; "
    program += "json.dump(digests(pathlib.Path(sys.argv[1]), 4), sys.stdout)"
    fresh = subprocess.run(
        [sys.executable, "-c", program, folder], check=True, capture_output=True, cwd=Path(__file__).parents[2]
    )

    assert len(set(alone.values())) == len(TASKS)
    for lanes in (4, 16):
        assert digests(folder, lanes) == alone
    assert json.loads(fresh.stdout) == alone


def test_the_published_size_says_the_packages_tokens_at_every_count_of_lanes(tmp_path: Path) -> None:
    """Random weights of the published size (1.2 GB on disk, removed at once); 20 s on two cores."""
    import torch

    from synth_consumer.engines.chattts.assets import find_assets
    from synth_consumer.engines.chattts.decode import Decoder
    from synth_consumer.engines.chattts.loading import load_chat
    from synth_consumer.engines.chattts.weights import fuse

    try:
        folder = write_assets(tmp_path, size="full")
        chat: Any = load_chat(find_assets(str(folder)), "cpu", 2)
    finally:
        # pytest keeps the folders of its last runs; the mapped weights stay readable.
        shutil.rmtree(tmp_path / "asset")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        speaker = chat.sample_random_speaker()
    model = fuse(chat)
    expected = [theirs(chat, line, speaker)[0] for line in LINES]
    assert len({tokens for said in expected for tokens in said}) > 40

    for lanes in (1, 4, 8, 16):
        lines, wanted = (LINES * 2, expected * 2) if lanes == 16 else (LINES, expected)
        said = [run.tokens for run in ours(chat, Decoder(model, lanes, 128), lines, speaker)]
        assert said == wanted, lanes
