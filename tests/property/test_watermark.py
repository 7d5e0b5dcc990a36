"""The offset watermark, against the plainest model of it: a set of what is finished."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infra.kafka.watermark import Watermark, WatermarkBook


@st.composite
def _offsets(draw: st.DrawFn) -> list[int]:
    """Ascending offsets with gaps, as a log has them."""
    first = draw(st.integers(0, 1_000))
    gaps = draw(st.lists(st.integers(1, 5), max_size=30))
    offsets = [first]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    return offsets


@given(_offsets(), st.data())
def test_position_is_the_first_unfinished_offset_whatever_the_order(offsets: list[int], data: st.DataObject) -> None:
    mark = Watermark()
    for offset in offsets:
        mark.start(offset)
    order = data.draw(st.permutations(offsets))
    positions = []
    for done, offset in enumerate(order, 1):
        mark.finish(offset)
        left = sorted(set(offsets) - set(order[:done]))
        assert mark.position == (left[0] if left else offsets[-1] + 1)
        assert mark.in_flight == len(left)
        assert mark.position is not None
        positions.append(mark.position)
    assert positions == sorted(positions), "never moves back"


def test_nothing_handed_out_means_nothing_to_commit() -> None:
    assert Watermark().position is None
    assert Watermark().uncommitted is None


def test_an_offset_is_handed_out_once() -> None:
    mark = Watermark()
    mark.start(5)
    assert not mark.follows(5)
    assert mark.follows(6)
    with pytest.raises(ValueError, match="handed out already"):
        mark.start(5)


def test_offsets_of_a_log_that_began_anew_are_not_taken_half() -> None:
    book: WatermarkBook[str] = WatermarkBook()
    book.assign("p")
    assert book.start_all("p", [7, 8])
    assert not book.start_all("p", [0, 1, 9])
    assert book.in_flight("p") == 2


class BookMachine(RuleBasedStateMachine):
    """Partitions come and go while work is handed out, finished and committed in any order."""

    partitions = ("a", "b")

    def __init__(self) -> None:
        super().__init__()
        self.book: WatermarkBook[str] = WatermarkBook()
        self.log = dict.fromkeys(self.partitions, 0)  # the broker's committed offset
        self.done: dict[str, set[int]] = {name: set() for name in self.partitions}
        self.next: dict[str, int] = {}  # next offset to hand out, of partitions held

    @rule(name=st.sampled_from(partitions))
    def assign(self, name: str) -> None:
        self.book.assign(name)
        self.next[name] = self.log[name]

    @rule(name=st.sampled_from(partitions))
    def lose(self, name: str) -> None:
        self.book.lose(name)
        self.next.pop(name, None)

    @rule(name=st.sampled_from(partitions), gap=st.integers(0, 2))
    def start(self, name: str, gap: int) -> None:
        held = name in self.next
        offset = self.next.get(name, 0) + gap
        self.done[name] |= set(range(self.next.get(name, 0), offset)) if held else set()
        assert self.book.start(name, offset) is held
        if held:
            self.next[name] = offset + 1

    @rule(name=st.sampled_from(partitions), back=st.integers(1, 8))
    def finish(self, name: str, back: int) -> None:
        # Also of a partition that is gone, or work of an earlier time of holding it.
        offset = self.next.get(name, 0) - back
        if name in self.next and offset >= 0:
            self.done[name].add(offset)
        self.book.finish(name, offset)

    @rule()
    def commit(self) -> None:
        positions = self.book.uncommitted()
        for name, position in positions.items():
            assert position >= self.log[name], "commits move forward while a partition is held"
            self.log[name] = position
        self.book.committed(positions)
        assert self.book.uncommitted() == {}

    @precondition(lambda self: self.next)
    @invariant()
    def nothing_unfinished_is_passed(self) -> None:
        for name, position in self.book.uncommitted().items():
            assert set(range(position)) <= self.done[name] | set(range(self.log[name]))


TestBook = BookMachine.TestCase
