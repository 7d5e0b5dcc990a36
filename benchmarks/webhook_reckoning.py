"""What became of every completion at a bad receiver, and what of it may not be."""

import sys
from typing import Any

from webhook_causes import Cause, Events, after_noted, causes, unexplained
from webhook_world import DeliveryLog, Place, Receiver

from notifier.bus_log import read_log
from notifier.signing import webhook_id
from schemas import topics


async def reckoned(
    place: Place, bad: Receiver, log: DeliveryLog, names: list[str], notifier_kills: list[float], receiver: list[float]
) -> dict[str, Any]:
    unanswered: dict[str, list[float]] = {}
    for event in log.unanswered(0.0):
        unanswered.setdefault(event.request_id, []).append(event.at.timestamp())
    noted = log.noted()
    events = Events(notifier_kills, receiver, noted, unanswered)
    found = causes(bad.arrivals, events)
    for line in unexplained(bad.arrivals, events):
        print(line, file=sys.stderr)
    ids = {arrival.webhook_id for arrival in bad.arrivals}
    dead = [record async for record in read_log(place.kafka, topics.DEAD_LETTERS)]
    return {
        "completions": len(names),
        "notifier_kills": len(notifier_kills),
        "receiver_kills": len(receiver),
        "attempts_unanswered": len(log.unanswered(0.0)),
        "requests": len(bad.arrivals),
        "delivered": len(bad.accepted),
        "noted_as_delivered": len(noted),
        "webhook_ids": len(ids),
        "one_id_each": "yes" if ids == bad.accepted.keys() == {webhook_id(name) for name in names} else "no",
        "again_after_2xx": found.total(),
        **{f"again: {cause}": found[cause] for cause in Cause},
        "again_after_noted": after_noted(bad.arrivals, noted),
        "dead_letters": len(dead),
    }


def faults(unreliable: dict[str, Any]) -> list[str]:
    """What may not be, of the figures of the unreliable receiver."""
    wrong = {
        "not one id for each completion, each delivered": unreliable["one_id_each"] != "yes",
        "repeats that no crash explains": unreliable[f"again: {Cause.NONE}"] > 0,
        "repeats of what was noted as delivered": unreliable["again_after_noted"] > 0,
        "dead letters": unreliable["dead_letters"] > 0,
    }
    return [fault for fault, is_so in wrong.items() if is_so]
