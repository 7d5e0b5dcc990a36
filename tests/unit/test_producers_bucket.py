import pytest

from infra.errors import ServerUnavailableError
from infra.settings import S3Settings
from producers.bucket import key_of, open_bucket
from tests.cut_off_store import cut_off_store

STORE = S3Settings(endpoint_url="http://127.0.0.1:8333", bucket="media")
CDN = S3Settings(bucket="media", public_base_url="https://cdn.example/audio/")


@pytest.mark.parametrize(
    ("settings", "url", "key"),
    [
        (STORE, "http://127.0.0.1:8333/media/v1/ab/cd.wav?X-Amz-Signature=1", "v1/ab/cd.wav"),
        (STORE, "http://127.0.0.1:8333/media/a%20b.wav", "a b.wav"),
        (STORE, "http://127.0.0.1:8333/other/a.wav", None),
        (STORE, "http://127.0.0.1:8333/media", None),
        (S3Settings(bucket="media"), "https://media.s3.amazonaws.com/v1/a.wav?X=1", "v1/a.wav"),
        (CDN, "https://cdn.example/audio/v1/a.wav", "v1/a.wav"),
        (STORE, "not a url", None),
        (STORE, "http://[::1/media/x", None),
    ],
)
def test_the_key_behind_a_url(settings: S3Settings, url: str, key: str | None) -> None:
    assert key_of(url, settings) == key


async def test_an_object_that_is_cut_off_is_a_store_that_does_not_answer() -> None:
    async with cut_off_store() as settings, open_bucket(settings) as bucket:
        with pytest.raises(ServerUnavailableError, match="object storage does not answer"):
            await bucket.facts(["a"], read=True)
