"""Rewrites in a fixed order. Pure."""

import re
from collections.abc import Callable

_Replacement = str | Callable[[re.Match[str]], str]


class Rules:
    """Patterns with what takes their place, each over the whole text, in order.

    A pattern must take time linear in the text: no repeat within a repeat, and a bound on each repeat that can begin at
    any place of what it repeats.
    """

    def __init__(self, *rules: tuple[str, _Replacement]) -> None:
        self._rules = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def __call__(self, text: str) -> str:
        """The text after all rewrites."""
        for pattern, replacement in self._rules:
            text = pattern.sub(replacement, text)
        return text


def number_pattern() -> str:
    """A number with thousands and decimals, "1,234.5", without a group.

    Of at most 32 characters: a search begins anew at every digit of a long run, so its reach is what makes it linear.
    """
    return r"\d(?:[\d,.]{0,30}\d)?"
