"""The endpoints file, where completions go by it, and when an endpoint is disabled."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiokafka import ConsumerRecord

from infra.errors import UserError
from notifier.attempt import Answer, AttemptResult
from notifier.bus_destination import bus_message
from notifier.delivery import Delivery, read_delivery
from notifier.directory import Directory
from notifier.endpoint import Endpoint, EndpointLimits
from notifier.named_endpoint import NamedEndpoint, read_endpoints
from notifier.route import Router
from notifier.signing import webhook_id
from notifier.targets import TargetRefusedError
from schemas.endpoints import EndpointChanged
from tests.notifier_world import SECRET

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
GOOD = AttemptResult(Answer.SUCCESS, status=204)
BAD = AttemptResult(Answer.SERVER_ERROR, status=500, error="HTTP status 500")
GONE = AttemptResult(Answer.GONE, status=410)
DAY = timedelta(days=1)


def write(folder: Path, text: str) -> Path:
    path = folder / "endpoints.toml"
    path.write_text(text)
    return path


def test_the_file_is_read(tmp_path: Path) -> None:
    text = f"""
    [endpoints.crm]
    url = "https://crm.example/hooks"
    events = ["speech.completed"]
    secrets = ["{SECRET}"]
    rate_per_s = 5
    headers = {{ X-Team = "voice" }}

    [endpoints.lake]
    url = "kafka://Team.speech"
    """
    endpoints = read_endpoints(write(tmp_path, text), ("Team.",))
    assert endpoints["crm"].wants("speech.completed")
    assert not endpoints["crm"].wants("speech.failed")
    assert endpoints["crm"].topic is None
    assert endpoints["lake"].wants("speech.failed")
    assert endpoints["lake"].topic == "Team.speech"
    assert SECRET not in repr(endpoints)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[endpoints", "is not TOML"),
        ("[endpoints.crm]", "endpoints.crm.url: Field required"),
        ("[endpoints.callback]\nurl = 'https://a.example/'", "the name is taken"),
        ("[endpoints.'a b']\nurl = 'https://a.example/'", "endpoints.a b"),
        ("[endpoints.crm]\nurl = 'ftp://a.example/'", "neither http"),
        ("[endpoints.crm]\nurl = 'https://a.example/'\nevents = ['speech.begun']", "endpoints.crm.events.0"),
        ("[endpoints.crm]\nurl = 'https://a.example/'\nrate_per_s = 0", "greater than 0"),
        ("[endpoints.crm]\nurl = 'https://a.example/'\nheaders = { Webhook-Id = 'x' }", "is set by voxbus"),
        ('[endpoints.crm]\nurl = "https://a.example/"\nheaders = { a = "x\\ny" }', "not printable"),
        ("[endpoints.crm]\nurl = 'https://a.example/'\nsecret = 'hidden-1'", "Extra inputs"),
        ("[endpoints.crm]\nurl = 'https://user:hidden-1@a.example/'", "carries credentials"),
        ("[endpoints.crm]\nurl = 'kafka://other.topic'", "ALLOWED_TOPIC_PREFIXES"),
        ("[endpoints.crm]\nurl = 'kafka://tts.requests'", "ALLOWED_TOPIC_PREFIXES"),
        ("[endpoints.crm]\nurl = 'kafka://team.x/y'", "does not name a topic"),
        ("[endpoints.crm]\nurl = 'kafka://team.x'\nsecrets = ['hidden-1']", "for http"),
    ],
)
def test_a_fault_is_named_without_values(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match="endpoints file") as caught:
        read_endpoints(write(tmp_path, text), ("team.", "tts."))
    assert message in str(caught.value)
    assert "hidden-1" not in str(caught.value)


def test_without_allowed_prefixes_no_topic_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ALLOWED_TOPIC_PREFIXES"):
        read_endpoints(write(tmp_path, "[endpoints.crm]\nurl = 'kafka://team.x'"))


def test_a_secret_that_is_none_is_named_by_its_endpoint() -> None:
    with pytest.raises(UserError, match=r"endpoints\.crm\.secrets: secret 1"):
        Directory({"crm": NamedEndpoint.model_validate({"url": "https://a.example/", "secrets": ["x"]})})


def directory(**more: str) -> Directory:
    endpoints = {"crm": "https://crm.example/hooks"} | more
    return Directory({name: NamedEndpoint(url=url) for name, url in endpoints.items()})


def test_410_disables_at_once_and_a_command_enables() -> None:
    known = directory()
    change = known.judge("crm", GONE, NOW)
    assert change is not None
    assert change.disabled
    assert "410" in change.reason
    assert known.names_for("speech.completed") == []
    with pytest.raises(TargetRefusedError, match="crm is disabled"):
        known.endpoint("crm")
    assert known.judge("crm", GOOD, NOW) is None  # what was in the air changes nothing
    known.heard(change)
    known.heard(EndpointChanged(name="crm", at=NOW))
    assert known.names_for("speech.completed") == ["crm"]


def test_five_days_without_a_success_disable() -> None:
    known = directory()
    assert known.judge("crm", BAD, NOW) is None
    told = known.judge("crm", BAD, NOW + DAY / 4)
    assert told is not None
    assert (told.disabled, told.failing_since) == (False, NOW)
    assert known.judge("crm", BAD, NOW + 4.9 * DAY) is None
    # A notifier that starts now knows it from the topic alone.
    other = directory()
    other.heard(told)
    ended = other.judge("crm", BAD, NOW + 5 * DAY)
    assert ended is not None
    assert ended.disabled
    assert "2026-11-23T12:00:00" in ended.reason


def test_a_success_begins_the_count_anew() -> None:
    known = directory()
    known.judge("crm", BAD, NOW)
    told = known.judge("crm", BAD, NOW + DAY)
    works = known.judge("crm", GOOD, NOW + 2 * DAY)
    assert told is not None
    assert works is not None
    assert works.failing_since is None
    assert known.judge("crm", GOOD, NOW + 2 * DAY) is None
    assert known.judge("crm", BAD, NOW + 6 * DAY) is None


def test_what_stands_before_our_own_word_does_not_undo_it() -> None:
    known = directory()
    known.judge("crm", BAD, NOW)
    told = known.judge("crm", BAD, NOW + DAY)
    ended = known.judge("crm", GONE, NOW + 2 * DAY)
    assert told is not None
    assert ended is not None
    known.heard(told)
    assert known.names_for("speech.failed") == []
    known.heard(EndpointChanged.model_validate_json(ended.model_dump_json()))
    known.heard(EndpointChanged(name="crm", at=NOW))
    assert known.names_for("speech.failed") == ["crm"]


def record(*extensions: tuple[str, str]) -> ConsumerRecord[bytes, bytes]:
    headers = tuple((f"ce_{name}", value.encode()) for name, value in (("id", "e-1"), ("type", "t"), *extensions))
    value = b'{"type":"speech.completed"}'
    return ConsumerRecord("tts.completed", 2, 7, 1_000, 0, b"r-1", value, None, 3, len(value), headers)


def deliveries(names: list[str], *extensions: tuple[str, str]) -> list[Delivery]:
    delivery = read_delivery(record(*extensions), without_callback=True)
    assert delivery is not None
    assert delivery.event_type == "speech.completed"
    return delivery.to_each(names)


CALLBACK = ("callbackurl", "https://bot.example/")


def test_one_completion_goes_to_all_under_an_id_each() -> None:
    own, crm, lake = deliveries(["crm", "lake"], CALLBACK)
    assert (own.endpoint, crm.endpoint, lake.endpoint) == (None, "crm", "lake")
    assert own.webhook_id == webhook_id("r-1")
    assert len({own.webhook_id, crm.webhook_id, lake.webhook_id}) == 3
    assert len({own.id, crm.id, lake.id}) == 3


def test_without_endpoints_nothing_is_added_and_without_any_receiver_nothing_is_to_do() -> None:
    (own,) = deliveries([], CALLBACK)
    assert own.headers == record(CALLBACK).headers
    assert deliveries([]) == []
    assert [one.endpoint for one in deliveries(["crm"])] == ["crm"]


def test_a_replayed_dead_letter_goes_to_its_own_receiver_only() -> None:
    for one in deliveries(["crm", "lake"], CALLBACK):
        mark = [value.decode() for name, value in one.completion().headers if name == "ce_endpoint"]
        (again,) = deliveries(["crm", "lake"], CALLBACK, ("endpoint", *mark))
        assert (again.endpoint, again.webhook_id) == (one.endpoint, one.webhook_id)


def test_routes() -> None:
    router = Router(directory(lake="kafka://team.speech", inside="http://10.0.0.1/"))
    own, crm, lake, inside, gone = deliveries(["crm", "lake", "inside", "gone"], CALLBACK)
    assert router.route(own).target.endpoint == "bot.example:443"
    assert router.route(crm).target.endpoint == "crm.example:443"
    assert router.route(crm).line == "crm"
    assert router.route(lake).target.topic == "team.speech"
    with pytest.raises(TargetRefusedError, match="private"):
        router.route(inside)
    with pytest.raises(TargetRefusedError, match="no endpoint gone"):
        router.route(gone)


def test_a_record_for_a_team_keeps_the_event_and_hides_the_callback() -> None:
    (_own, lake) = deliveries(["lake"], CALLBACK)
    message = bus_message(lake)
    assert (message.key, message.value) == (b"r-1", lake.body)
    assert dict(message.headers) == {"ce_id": lake.webhook_id.encode(), "ce_type": b"t"}


def test_a_rate_spaces_the_starts() -> None:
    endpoint = Endpoint(EndpointLimits(), 0.0, rate_per_s=4)
    assert endpoint.pause_s(10.0) == 0
    endpoint.started(10.0)
    assert endpoint.pause_s(10.1) == pytest.approx(0.15)
    # What comes beyond is put off at the same rate.
    assert endpoint.put_off_s(0, 10.0) == pytest.approx(0.25)
    assert endpoint.put_off_s(0, 10.0) == pytest.approx(0.5)
