"""The gateway's pure parts: encoders, keys, limits, backpressure, and the words of the HTTP door."""

import io
import json
import struct

import numpy as np
import pytest
import soundfile

from infra.errors import UserError
from infra.voices import load_catalogue
from producers.gateway.backpressure import Backpressure
from producers.gateway.encoding import encoded, new_encoder, wav_header
from producers.gateway.keys import KeyRing, load_keys, new_key
from producers.gateway.limits import Handful
from producers.gateway.pipeline import figures_of
from producers.gateway.problems import ProblemError
from producers.gateway.routes.openai import OpenAISpeech, speech_of, speed_of
from producers.gateway.settings import GatewaySettings
from schemas.codes import Priority


def sine(seconds, rate):
    return (np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate) * 12_000).astype("<i2").tobytes()


async def blocks_of(pcm, size=20_000):
    for start in range(0, len(pcm), size):
        yield pcm[start : start + size]


@pytest.mark.parametrize("rate", [22_050, 24_000])
@pytest.mark.parametrize("audio_format", ["mp3", "opus", "flac", "wav"])
async def test_a_file_comes_while_its_audio_is_made(audio_format, rate):
    pcm = sine(3, rate)
    pieces = [piece async for piece in encoded(blocks_of(pcm), audio_format, rate)]
    assert len(pieces) > 2
    heard = 0
    try:
        with soundfile.SoundFile(io.BytesIO(b"".join(pieces))) as source:
            for block in source.blocks(1_024):
                heard += len(block) / source.samplerate
    except soundfile.LibsndfileError:
        assert audio_format == "flac", "libsndfile stumbles over the end of a FLAC of unknown length, and only there"
    assert abs(heard - 3) < 0.15


def test_lossless_formats_lose_nothing():
    pcm = sine(0.5, 24_000)
    encoder = new_encoder("wav", 24_000)
    assert encoder.encode(pcm) + encoder.finish() == wav_header(24_000) + pcm
    assert struct.unpack("<I", wav_header(24_000)[24:28]) == (24_000,)
    raw = new_encoder("pcm", 24_000)
    assert raw.encode(pcm) + raw.finish() == pcm


def test_an_empty_file_is_a_file():
    encoder = new_encoder("wav", 24_000)
    assert encoder.finish() == wav_header(24_000)


def test_keys_are_hashed_and_ids_say_whose_they_are(tmp_path):
    (alice, line_a), (bob, line_b) = new_key("alice"), new_key("bob")
    (tmp_path / "keys").write_text(f"# people\n{line_a}\n\n{line_b}\n")
    ring = load_keys(tmp_path / "keys")
    assert alice not in line_a
    assert (ring.owner_of(alice), ring.owner_of(bob), ring.owner_of("x"), ring.owner_of(None)) == (
        "alice", "bob", None, None,
    )  # fmt: skip
    made = ring.sign("alice", "01ABC")
    assert ring.is_marked(made)
    assert ring.owns("alice", made)
    assert not ring.owns("bob", made)
    assert not ring.owns("alice", made[:-1] + ("0" if made[-1] != "0" else "1"))
    assert not ring.is_marked("order-4711")
    assert KeyRing(()).sign("anybody", "01ABC") == "01ABC"


def test_two_keys_of_one_owner_see_the_same_requests(tmp_path):
    lines = [new_key("alice")[1] for _ in range(2)]
    (tmp_path / "keys").write_text("\n".join(lines))
    both = load_keys(tmp_path / "keys")
    (tmp_path / "keys").write_text(lines[1])
    made = load_keys(tmp_path / "keys").sign("alice", "x")
    assert both.owns("alice", made)


@pytest.mark.parametrize("content", ["", "not json", '{"name": "a"}', "[]"])
def test_a_keys_file_that_is_none_is_said_to_be(tmp_path, content):
    (tmp_path / "keys").write_text(content)
    with pytest.raises(UserError, match="keys"):
        load_keys(tmp_path / "keys")


def test_a_handful_is_spent_lapses_and_knows_when_the_bucket_is_empty():
    handful = Handful("all", rate=600, burst=600)
    assert (handful.size, handful.spend(0)) == (30, False)
    handful.fill(2, now=0)
    assert [handful.spend(0.5), handful.spend(0.5), handful.spend(0.5)] == [True, True, False]
    handful.fill(5, now=1)
    assert not handful.spend(2.5), "lapsed"
    handful.found_empty(7, now=3)
    with pytest.raises(ProblemError) as refused:
        handful.spend(3.01)
    assert (refused.value.status, refused.value.retry_after_s) == (429, 7)
    assert handful.spend(3.2) is False, "asked again soon"
    assert Handful("few", rate=3, burst=3).size == 1, "a small bucket is shared token by token"


def test_a_bucket_holds_a_second_at_least():
    with pytest.raises(ValueError, match="rate_burst"):
        GatewaySettings(rate_per_s=100, rate_burst=10)


def test_bulk_is_refused_before_interactive():
    pressure = Backpressure(max_queued_audio_s=100)
    pressure.in_flight(19)
    pressure.admit(Priority.BULK)
    pressure.in_flight(21)  # of 5 s each
    with pytest.raises(ProblemError) as refused:
        pressure.admit(Priority.BULK)
    assert refused.value.retry_after_s >= 1
    pressure.admit(Priority.INTERACTIVE)
    pressure.in_flight(41)
    with pytest.raises(ProblemError):
        pressure.admit(Priority.INTERACTIVE)


def test_their_voices_and_speeds_become_ours():
    catalogue = load_catalogue()
    body = OpenAISpeech(input="Hello", voice="alloy", speed=1.0, response_format="pcm")
    assert speech_of(body, catalogue).voice in catalogue.voices
    assert [speed_of(factor) for factor in (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)] == [0, 0, 5, 7, 9, 9]
    with pytest.raises(ProblemError):
        speech_of(OpenAISpeech(input="a", voice="no such voice!"), catalogue)


def test_shown_figures_are_summed_over_their_telling_label():
    page = (
        "# TYPE voxbus_webhooks_total counter\n"
        'voxbus_webhooks_total{state="delivered",x="1"} 2.0\nvoxbus_webhooks_total{state="delivered",x="2"} 3.0\n'
        "# TYPE voxbus_synth_lanes gauge\nvoxbus_synth_lanes 4.0\n# TYPE other gauge\nother 1.0\n"
    )
    assert figures_of(page) == {"voxbus_webhooks_total": {"delivered": 5.0}, "voxbus_synth_lanes": {"": 4.0}}


def test_a_problem_has_the_form_of_rfc_9457():
    answer = ProblemError(429, "rate_limited", "slow", pointer="/text", retry_after_s=1.2).response()
    body = json.loads(bytes(answer.body))
    assert (answer.status_code, answer.media_type, answer.headers["retry-after"]) == (
        429, "application/problem+json", "2",
    )  # fmt: skip
    assert body["type"] == "urn:voxbus:problem:rate_limited"
    assert body["errors"] == [{"pointer": "#/text", "detail": "slow"}]
