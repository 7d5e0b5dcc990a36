"""Every command on a page exists and takes the options it is shown with; every link leads somewhere."""

import re
from contextlib import suppress

import click
import pytest

from infra.cli import voxbus
from tests.documents import ROOT, Block, blocks, commands, pages

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


@pytest.mark.parametrize("block", [each for each in blocks() if each.language in {"console", "sh", "bash", "python"}])
def test_what_can_be_run_is_run_or_says_why_not(block: Block) -> None:
    assert re.fullmatch(r"run(: [a-z]+)?|static: .{10,}", block.mark), f"{block.page}: {block.text[:60]!r}"


def test_every_setting_on_a_page_is_in_the_table() -> None:
    table = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    known = set(re.findall(r"`(VOXBUS_[A-Z0-9_]+)`", table))
    # Variables of the tests and of the compose file, which are no settings of a process.
    others = {"VOXBUS_TEST_BACKEND", "VOXBUS_TEST_KAFKA_IMAGE", "VOXBUS_SIGNING_SECRET", "VOXBUS_ENGINE"}
    others |= {"VOXBUS_TEST_REQUIRE_BROWSER", "VOXBUS_TEST_REQUIRE_NPM", "VOXBUS_SCREENSHOTS"}
    for page in pages():
        for name in re.findall(r"VOXBUS_[A-Z0-9_]*[A-Z0-9](?:__)?", page.read_text(encoding="utf-8")):
            group = any(each.startswith(f"{name.removesuffix('__')}__") for each in known)
            assert name in known | others or group, f"{page.relative_to(ROOT)} names {name}"
