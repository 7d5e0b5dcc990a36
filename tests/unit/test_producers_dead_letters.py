import json

import pytest

from infra.errors import UserError
from producers.dead_letters import Choice, Letter, under_new_id
from schemas import topics
from schemas.codec import Message
from schemas.codes import ErrorCode
from schemas.dead_letters import dead_letter


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
