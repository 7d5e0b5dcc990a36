"""Ends that the property test does not name one by one."""

from schemas.codec import decode
from schemas.codes import AudioFormat, ErrorCode, Priority, State
from schemas.completions import EngineInfo, RequestStatus
from schemas.outcomes import RenditionStored, StoredObject, SynthesisFailed
from schemas.requests import SpeechSpec, SynthesisAdmitted
from synth_consumer.dedup.decisions import on_admitted
from synth_consumer.dedup.orders import Policy
from synth_consumer.dedup.rows import moment
from synth_consumer.dedup.settlement import on_rendition_stored, on_synthesis_failed
from synth_consumer.dedup.steps import Output, Step
from tests.property.test_dedup_decisions import Rows

_FINGERPRINT = "a" * 64
_POLICY = Policy(stored_ttl_s=500.0, redrive_after_s=100.0, max_drives=2, progress_fan_out=2)


def _admitted(rows: Rows, request_id: str, audio_format: AudioFormat, ref: str) -> Step:
    request = SynthesisAdmitted(
        request_id=request_id,
        fingerprint=_FINGERPRINT,
        spec=SpeechSpec(text="hello", voice="female1", language="en", dialect="english"),
        format=audio_format,
        priority=Priority.INTERACTIVE,
        accepted_at=moment(1_000),
        expires_at=moment(9_000),
    )
    return on_admitted(rows, request, None, _POLICY, now=1_000, ref=ref)


def _stored_as_wav(rows: Rows) -> None:
    def stored(audio_format: AudioFormat) -> StoredObject:
        return StoredObject(key="k", format=audio_format, bytes=1, sha256="b" * 64, url="http://127.0.0.1/k")

    event = RenditionStored(
        fingerprint=_FINGERPRINT,
        job_id=rows.syntheses[_FINGERPRINT].job_id,
        take_id="t",
        master=stored(AudioFormat.FLAC),
        renditions=(stored(AudioFormat.WAV),),
        duration_s=1.0,
        sample_rate=24_000,
        engine=EngineInfo(name="tone", revision="1", seed=1),
    )
    step = on_rendition_stored(rows, event, _POLICY, now=1_001, ref="stored")
    rows.begin(step)
    rows.remove(step)


def _ended(outputs: list[Output]) -> set[str]:
    statuses = [decode(RequestStatus, out.message.value) for out in outputs if out.topic == "tts.status"]
    return {status.request_id for status in statuses if status.state is State.FAILED}


def test_a_lost_master_is_forgotten_even_when_a_crash_cuts_the_telling_short() -> None:
    rows = Rows()
    rows.begin(_admitted(rows, "first", AudioFormat.WAV, "0"))
    _stored_as_wav(rows)
    rows.begin(_admitted(rows, "mp3", AudioFormat.MP3, "1"))
    rows.begin(_admitted(rows, "opus", AudioFormat.OPUS, "2"))
    orders = rows.syntheses[_FINGERPRINT].orders
    gone = SynthesisFailed(
        fingerprint=_FINGERPRINT,
        job_id=orders[AudioFormat.MP3].job_id,
        code=ErrorCode.STORAGE_UNAVAILABLE,
        message="the master is gone",
    )

    rows.begin(on_synthesis_failed(rows, gone, _POLICY, now=1_002))
    rows.ending.clear()  # the worker dies before the rows are removed, and another does the event again
    again = on_synthesis_failed(rows, gone, _POLICY, now=1_003)

    assert _ended(rows.begin(again)) == {"mp3", "opus"}
    rows.remove(again)
    assert _FINGERPRINT not in rows.syntheses
    assert _admitted(rows, "later", AudioFormat.WAV, "3").kind == "new"


def test_a_good_end_is_not_told_again_with_another_body_when_its_request_comes_again() -> None:
    rows = Rows()
    rows.begin(_admitted(rows, "first", AudioFormat.WAV, "0"))
    _stored_as_wav(rows)  # told and confirmed; then a kill before the offset of the request is committed
    again = _admitted(rows, "first", AudioFormat.WAV, "0")
    assert again.kind == "repeat"
    assert not list(again.outputs)
