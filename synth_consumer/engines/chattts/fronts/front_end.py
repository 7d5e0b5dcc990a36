"""What a dialect's front end is, and the two steps of its work."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Language = Literal["zh", "en"]


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """Text of one dialect made readable. Both steps take any text and raise nothing."""

    language: Language
    """Whose rules the package's own normaliser follows."""
    prepare: Callable[[str], str]
    """Of a whole text, in time linear in its length: what must be known before it is cut into sentences."""
    spell: Callable[[str], str]
    """Of one sentence or so, as the number grammar is slow: everything in words, no digit left."""
