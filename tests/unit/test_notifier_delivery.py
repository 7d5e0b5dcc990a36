"""What a record of the bus is read as, also one that a stranger wrote."""

from dataclasses import replace

import pytest
from aiokafka import ConsumerRecord

from notifier.delivery import Delivery, UnreadableDeliveryError, read_delivery

_CALLBACK = ("ce_callbackurl", b"https://hooks.example/")


def record(key: bytes | None, value: bytes | None, *headers: tuple[str, bytes]) -> ConsumerRecord:
    return ConsumerRecord("tts.completed", 0, 1, 1_000, 0, key, value, None, 0, 0, (_CALLBACK, *headers))


def read(value: bytes = b"{}", *headers: tuple[str, bytes]) -> Delivery:
    delivery = read_delivery(record(b"r-1", value, *headers))
    assert delivery is not None
    return delivery


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"{}"),
        (b"", b"{}"),
        (b"bad key!", b"{}"),
        (b"x" * 129, b"{}"),
        (b"\xff", b"{}"),
        (b"r", None),
        (b"r", b"\xff"),
    ],
)
def test_what_cannot_be_told_about_is_unreadable(key: bytes | None, value: bytes | None) -> None:
    with pytest.raises(UnreadableDeliveryError):
        read_delivery(record(key, value))


def test_a_body_too_deep_to_read_has_no_kind() -> None:
    deep = b'{"a":' + b"[" * 100_000
    assert read(deep).event_type == ""
    assert replace(read(), body=b'{"type":"speech.failed"}').event_type == "speech.failed"


@pytest.mark.parametrize("number", ["1e400", str(2**70), "-1", '"x"'])
def test_progress_that_makes_no_sense_begins_anew(number: str) -> None:
    mark = f'{{"attempts":{number},"due_ms":{number},"release_ms":1,"first_ms":1,"partition":0,"offset":0}}'
    assert read(b"{}", ("ce_delivery", mark.encode())).attempt == 1
