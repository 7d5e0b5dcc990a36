"""Where on the retry topics a delivery waits. Pure.

A topic is read in order, so everything in one tier should wait about as long; else a short wait stands behind a long
one. A tier holds what has between 1 and 1.25 times its hold still to wait, to the moment; what has longer stays for
the hold and moves on. A day is twelve moves, a scheduled delay one or two.
"""

from dataclasses import dataclass

from schemas.topics import DELIVERY_RETRIES

HOLDS_S = (0.0, 5.0, 30.0, 300.0, 1_800.0, 7_200.0)
"""Seconds that the tiers 1 to 6 hold; the first takes what is due in less than the second's hold."""
_SLACK = 1.25

FIRST_TIER = DELIVERY_RETRIES[0]


@dataclass(frozen=True, slots=True)
class Stay:
    """Where to wait, and until when."""

    topic: str
    release_ms: int


def stay(now_ms: int, due_ms: int) -> Stay:
    """The next stay of a delivery that is due at `due_ms`; both in milliseconds since 1970.

    Never releases after the due moment, or before now.
    """
    remaining_s = (due_ms - now_ms) / 1000
    tier = max((n for n, hold in enumerate(HOLDS_S) if hold <= remaining_s), default=0)
    if tier == 0 or remaining_s <= HOLDS_S[tier] * _SLACK:
        return Stay(DELIVERY_RETRIES[tier], max(now_ms, due_ms))
    return Stay(DELIVERY_RETRIES[tier], now_ms + int(HOLDS_S[tier] * 1000))
