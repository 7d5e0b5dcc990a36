"""The protocol of one delivery under kills at any step, against a model of the bus.

A step takes a record in hand, finishes a stage of an attempt, commits, kills the process, or takes the partitions away
and gives them back while attempts run on. Whatever the order: the delivery ends, and is noted as ended exactly once.
"""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from notifier.ledger import Ledger, Settled, Verdict

ID = "d"


@dataclass
class Attempt:
    """One attempt in hand, and how far its publishing is."""

    offset: int
    number: int
    delivered: bool
    stage: int = 0
    ours: bool = True
    """Its record was handed out by the present assignment."""


@dataclass
class Model:
    """The bus, which survives, and the process, which does not."""

    records: dict[int, int] = field(default_factory=lambda: {0: 1})  # offset: attempt; not committed yet
    log: list[Settled] = field(default_factory=list)
    written: int = 1
    ledger: Ledger = field(default_factory=Ledger)
    finished: set[int] = field(default_factory=set)
    running: list[Attempt] = field(default_factory=list)

    def waiting(self) -> list[int]:
        """Offsets that are neither finished nor in hand."""
        busy = self.finished | {attempt.offset for attempt in self.running if attempt.ours}
        return sorted(set(self.records) - busy)

    def take(self, choice: int, delivered: bool) -> None:
        """Take a record, as `Intake.go` does."""
        waiting = self.waiting()
        if not waiting:
            return
        offset = waiting[choice % len(waiting)]
        number = self.records[offset]
        match self.ledger.begin(ID, number):
            case Verdict.ATTEMPT:
                self.running.append(Attempt(offset, number, delivered))
            case Verdict.NOTHING:
                self.finished.add(offset)
            case Verdict.LATER:
                self.append(number)
                self.finished.add(offset)

    def advance(self, choice: int) -> None:
        """One stage of `BusSettlement.settle`: the waiting record, the event, the record's end."""
        if not self.running:
            return
        attempt = self.running[choice % len(self.running)]
        if attempt.stage == 0 and not attempt.delivered:
            self.append(attempt.number + 1)
        elif attempt.stage == 1:
            settled = Settled(ID, attempt.number, attempt.delivered)
            self.log.append(settled)
            self.ledger.settle(settled)
        elif attempt.stage == 2:
            self.finished |= {attempt.offset} & set(self.records)
            self.running.remove(attempt)
        attempt.stage += 1

    def append(self, number: int) -> None:
        """A record for an attempt, at the end of the log."""
        self.records[self.written] = number
        self.written += 1

    def commit(self) -> None:
        """What is finished is not read again."""
        for offset in self.finished:
            del self.records[offset]
        self.finished.clear()

    def rebalance(self) -> None:
        """The same partitions again: what was finished and not committed, and what is in hand, is read once more."""
        self.finished.clear()
        for attempt in self.running:
            attempt.ours = False
        self.ledger.recall(self.log)

    def kill(self) -> None:
        """Memory is gone; what was finished and not committed comes again; the log is read."""
        self.running.clear()
        self.finished.clear()
        self.ledger = Ledger()
        self.ledger.recall(self.log)


steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "advance", "advance", "advance", "commit", "rebalance", "kill"]),
        st.integers(0, 7),
    ),
    max_size=80,
)


@given(steps)
def test_a_delivery_ends_exactly_once_whatever_is_killed_when(script: list[tuple[str, int]]) -> None:
    model = Model()
    for step, choice in script:
        match step:
            case "take":
                model.take(choice, delivered=choice == 0)
            case "advance":
                model.advance(choice)
            case "commit":
                model.commit()
            case "rebalance":
                model.rebalance()
            case _:
                model.kill()
    # Left alone, and with a receiver that answers, it comes to its end.
    for _ in range(1_000):
        if not model.records:
            break
        model.take(0, delivered=True)
        model.advance(0)
        model.commit()
    assert not model.records
    assert sum(settled.ended for settled in model.log) == 1
