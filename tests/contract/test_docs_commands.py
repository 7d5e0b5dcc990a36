"""Every command on a page exists and takes the options it is shown with; every link leads somewhere."""

import re
from contextlib import suppress

import click
import pytest

from infra.cli import voxbus
from tests.documents import ROOT, commands, pages

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SHOWN = sorted({(page, tuple(words)) for page, words in commands()})
_TOOLS = {"pytest", "python", "pre-commit", "docker", "kubectl", "cd", "git", "printf", "bash", "sh"}


def _check_voxbus(words: list[str]) -> None:
    command: click.Command = voxbus
    with click.Context(voxbus) as context:
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            name, *words = words
            inner = command.get_command(context, name)
            assert inner is not None, f"there is no command {name}"
            command = inner
        if words and not {"…", "..."} & set(words):
            command.make_context(command.name, list(words), resilient_parsing=False)


@pytest.mark.parametrize(
    ("page", "words"), SHOWN, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_command_exists(page: str, words: tuple[str, ...]) -> None:
    plain = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
    program, *arguments = plain
    program = program.removeprefix(".venv/bin/")
    if program == "make":
        assert {word for word in arguments if "=" not in word} <= TARGETS
    elif program == "voxbus":
        with suppress(click.exceptions.Exit):  # --help and --version
            _check_voxbus(arguments)
    else:
        assert program in _TOOLS


def test_every_link_leads_somewhere() -> None:
    for page in pages():
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
