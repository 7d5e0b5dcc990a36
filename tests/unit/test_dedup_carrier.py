"""A dead letter fits on the bus whatever its sender put into key, value and headers."""

from schemas.codes import ErrorCode
from schemas.dead_letters import dead_letter, read_dead_letter
from synth_consumer.dedup.carrier import facts_only


def test_the_facts_of_a_dead_letter_are_kept_and_fit() -> None:
    facts = dead_letter(
        ErrorCode.INVALID_REQUEST, "no", pointer="", stage="dedup", topic="tts.requests", partition=1, offset=2
    )
    whole = facts.message_of(b"k" * 1_200_000, b"v" * 500_000, [("x", b"x" * 2_000_000)])
    small = facts_only(whole)
    size = len(small.key or b"") + len(small.value or b"") + sum(len(n) + len(v) for n, v in small.headers)
    assert size < 10_000
    letter = read_dead_letter(small.headers)
    assert (letter.topic, letter.partition, letter.offset, letter.truncated) == ("tts.requests", 1, 2, True)
    assert letter.value_bytes == 500_000
