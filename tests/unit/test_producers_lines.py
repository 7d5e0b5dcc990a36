import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.lines import Line, LineSplitter, line_batches


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=30))
def test_lines_do_not_depend_on_how_the_stream_is_cut(content: bytes, cuts: list[int]) -> None:
    splitter = LineSplitter(limit=16)
    found: list[Line] = []
    rest = content
    for cut in cuts:
        found += splitter.feed(rest[:cut])
        rest = rest[cut:]
    found += splitter.feed(rest)
    found += splitter.finish()

    expected = [
        Line(number, line if len(line) <= 16 else None)
        for number, line in enumerate(content.split(b"\n"), start=1)
        if line.strip() or len(line) > 16
    ]
    assert found == expected


async def test_a_file_is_read_to_its_last_line() -> None:
    batches = [batch async for batch in line_batches(io.BytesIO(b"one\n\nthree"))]
    assert [line for batch in batches for line in batch] == [Line(1, b"one"), Line(3, b"three")]


async def test_a_pipe_gives_lines_as_they_come_and_stays_as_it_was() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as file:
        batches = line_batches(file)
        os.write(write_end, b"one\ntw")
        assert await anext(batches) == [Line(1, b"one")]
        os.write(write_end, b"o\n")
        assert await anext(batches) == [Line(2, b"two")]
        os.close(write_end)
        with pytest.raises(StopAsyncIteration):
            await anext(batches)
        assert os.get_blocking(read_end)
