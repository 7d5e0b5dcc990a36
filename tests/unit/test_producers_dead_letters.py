import json

import pytest

from infra.errors import UserError
from producers.dead_letters import Choice, Letter, ended_id, under_new_id
from schemas import topics
from schemas.codec import Headers, Message
from schemas.codes import ErrorCode
from schemas.dead_letters import dead_letter
from schemas.requests import CancelRequested, SynthesisRequested


def _letter(value: bytes, topic: str = topics.REQUESTS) -> Letter:
    reason = dead_letter(ErrorCode.UNSUPPORTED_VOICE, "no", stage="dedup", topic=topic, partition=1, offset=2)
    return Letter("3:4", reason, Message(b"r1", value, (("ce_id", b"1"),)))


def test_a_request_gets_a_new_id_and_nothing_else_changes() -> None:
    letter = _letter('{"request_id": "r1", "text": "你好", "unknown": 1}'.encode())
    request_id, message = under_new_id(letter, letter.message)
    assert json.loads(message.value) == {"request_id": request_id, "text": "你好", "unknown": 1}
    assert message.key == request_id.encode() != b"r1"
    assert message.headers == letter.message.headers


@pytest.mark.parametrize("letter", [_letter(b"{bad"), _letter(b"[]"), _letter(b"{}", topics.AUDIO)])
def test_what_is_no_request_cannot_have_another_id(letter: Letter) -> None:
    with pytest.raises(UserError, match="3:4"):
        under_new_id(letter, letter.message)


def test_an_empty_choice_takes_all() -> None:
    assert Choice().takes(_letter(b""))
    assert not Choice(ids=frozenset({"0:0"})).takes(_letter(b""))
    assert not Choice(code=ErrorCode.INTERNAL).takes(_letter(b""))
    assert Choice(frozenset({"3:4"}), ErrorCode.UNSUPPORTED_VOICE, "dedup", topics.REQUESTS).takes(_letter(b""))


@pytest.mark.parametrize(
    ("value", "headers", "topic", "expected"),
    [
        (b'{"request_id": "r1", "text": "x"}', (), topics.REQUESTS, "r1"),
        (b'{"request_id": "r1"}', (("ce_type", SynthesisRequested.ce_type.encode()),), topics.REQUESTS, "r1"),
        (b'{"request_id": "r1"}', (("ce_type", CancelRequested.ce_type.encode()),), topics.REQUESTS, None),
        (b'{"request_id": "r1"}', (), topics.JOBS_BULK, None),
        (b'{"request_id": "two words"}', (), topics.REQUESTS, None),
        (b'{"request_id": 7}', (), topics.REQUESTS, None),
        (b'{"text": "x"}', (), topics.REQUESTS, None),
        (b"[1]", (), topics.REQUESTS, None),
        (b"{broken", (), topics.REQUESTS, None),
    ],
)
def test_only_a_request_that_ended_under_its_id_needs_another(
    value: bytes, headers: Headers, topic: str, expected: str | None
) -> None:
    assert ended_id(_letter(value, topic), Message(None, value, headers)) == expected
