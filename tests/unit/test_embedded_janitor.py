import pytest

import uploader.app
from infra.embedded.janitor import READER, TopicSize, decide


@pytest.mark.parametrize(
    ("size", "unread", "decision"),
    [(100, {0: 3}, "small"), (100, {}, "small"), (101, {0: 0, 1: 1}, "unread"), (101, {0: 0, 1: 0}, "drop")],
)
def test_the_topic_goes_when_large_and_read(size, unread, decision):
    assert decide(TopicSize(objects=1, bytes=size), 100, unread) == decision


def test_the_reader_is_the_uploader():
    assert uploader.app.GROUP == READER
