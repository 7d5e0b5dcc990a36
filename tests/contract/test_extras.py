"""An extra brings all that its stage imports: what is outside of it is hidden, then the stage starts."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_CHILD = """
import importlib, json, sys
hidden = frozenset(json.loads(sys.argv[1]))

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
for module in sys.argv[3:]:
    importlib.import_module(module)
from infra.cli import voxbus
voxbus.main([sys.argv[2], "--help"], standalone_mode=False)
"""

_STAGES = {
    "dedup": ("dedup", ("synth_consumer.dedup.__main__", "synth_consumer.dedup.app")),
    "synth": (
        "synth",
        (
            "synth_consumer.worker.__main__",
            "synth_consumer.worker.app",
            "synth_consumer.engines.tone",
            "synth_consumer.engines.espeak",
        ),
    ),
    "upload": ("uploader", ("uploader.__main__", "uploader.app")),
    "notify": ("notifier", ("notifier.__main__", "notifier.app")),
    "say": ("producers", ("producers.cli", "producers")),
    "dlq": ("producers", ("producers.dlq_cli",)),
    "audit": ("audit", ("producers.audit_cli",)),
    "webhooks": ("notifier", ("notifier.cli",)),
    "up": ("embedded", ("infra.embedded.cli", "infra.embedded.stack")),
}


def _needed(name: str, extras: frozenset[str], seen: set[tuple[str, str]]) -> Iterator[str]:
    """Distributions that `pip install name[extras]` brings, itself included."""
    yield canonicalize_name(name)
    try:
        lines = requires(name) or []
    except PackageNotFoundError:  # not for this platform
        return
    for line in lines:
        requirement = Requirement(line)
        for extra in ("", *extras):
            if (line, extra) in seen or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
                continue
            seen.add((line, extra))
            yield from _needed(requirement.name, frozenset(requirement.extras), seen)


@pytest.mark.parametrize("command", _STAGES)
def test_a_stage_needs_its_extra_and_no_more(command: str) -> None:
    extra, modules = _STAGES[command]
    needed = set(_needed("voxbus", frozenset({extra}), set()))
    hidden = [
        module
        for module, distributions in packages_distributions().items()
        if not needed & {canonicalize_name(name) for name in distributions} and module != "tests"
    ]
    assert "pytest" in hidden
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps(hidden), command, *modules],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Not installed here" not in done.stdout
