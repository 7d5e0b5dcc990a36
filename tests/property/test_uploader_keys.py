"""Facts survive the way through object metadata, whatever an operator calls a revision."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import AudioFormat
from schemas.completions import EngineInfo
from uploader.keys import SynthesisFacts, facts_of, folder_of, metadata_of, object_key

digests = st.binary(min_size=1, max_size=8).map(lambda data: hashlib.sha256(data).hexdigest())
facts = st.builds(
    SynthesisFacts,
    fingerprint=digests,
    pcm_sha256=digests,
    samples=st.integers(1, 10**9),
    sample_rate=st.sampled_from([16_000, 22_050, 24_000]),
    engine=st.builds(EngineInfo, name=st.text(min_size=1), revision=st.text(), seed=st.integers(0, 2**53 - 1)),
    take_id=st.uuids().map(str),
    truncated=st.booleans(),
)


@given(facts=facts)
def test_metadata_round_trip(facts: SynthesisFacts) -> None:
    metadata = metadata_of(facts, "0" * 64, file_rate=48_000)
    assert all(value.isascii() and value.isprintable() for value in metadata.values())
    # Stores differ in the case they give header names back in.
    assert facts_of({name.title(): value for name, value in metadata.items()}) == facts


@given(facts=facts)
def test_keys_stand_in_the_folder_of_their_fingerprint(facts: SynthesisFacts) -> None:
    keys = {object_key("p/", facts, audio_format) for audio_format in AudioFormat}
    assert len(keys) == len(AudioFormat)
    assert all(key.startswith(folder_of("p/", facts.fingerprint)) for key in keys)


def test_an_object_of_somebody_else_is_not_read() -> None:
    with pytest.raises(ValueError, match="metadata fingerprint is missing"):
        facts_of({"owner": "somebody"})
