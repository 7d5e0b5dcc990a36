"""Finds the commands and programs in the project's Markdown pages."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(
    r"(?:<!-- (?P<mark>[^>\n]+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_INLINE = re.compile(r"`((?:voxbus|make) [^`]+)`")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. On the line before it, `<!-- run -->`: a test runs it; `<!-- static: why -->`: none does."""

    page: str
    language: str
    mark: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of every `$ …` line."""
        lines = [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]
        return [shlex.split(line, comments=True) for line in lines]


def pages() -> list[Path]:
    """Every Markdown page people read; not the records of decisions."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    for folder in ("schemas", "infra", "producers", "synth_consumer", "uploader", "notifier", "examples", "benchmarks"):
        found += ROOT.glob(f"{folder}/**/*.md")
    return sorted(found)


def blocks() -> list[Block]:
    """All fenced blocks with a language."""
    return [
        Block(str(page.relative_to(ROOT)), match["language"], match["mark"] or "", match["text"])
        for page in pages()
        for match in _FENCE.finditer(page.read_text(encoding="utf-8"))
    ]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Page and words of every command, fenced or inline."""
    for block in blocks():
        if block.language == "console":
            for words in block.commands:
                yield block.page, words
    for page in pages():
        for command in _INLINE.findall(page.read_text(encoding="utf-8")):
            yield str(page.relative_to(ROOT)), shlex.split(command)
