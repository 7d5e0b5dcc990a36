"""Makes one attempt over HTTP: no redirects, no cookies, no proxies, a small answer, one deadline."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

import aiohttp
from aiohttp.abc import AbstractResolver

from infra.logging import get_logger
from notifier.attempt import Answer, AttemptResult, answer_of
from notifier.delivery import Delivery
from notifier.directory import Directory
from notifier.resolver import CheckedResolver, LookupRefusedError, open_lookups
from notifier.retry import retry_after_s
from notifier.settings import NotifierSettings
from notifier.signing import Signer
from notifier.targets import Target, TargetRefusedError
from schemas.base import utc_now

_ABORT = "abort-message"
# The status decides; a body that drips does not keep a connection.
_BODY_S = 1.0
_USER_AGENT = f"voxbus/{version('voxbus')}"

_log = get_logger(__name__)


class Sender:
    """Posts signed completions. Make one with `open_sender`."""

    def __init__(
        self,
        sessions: Mapping[str | None, aiohttp.ClientSession],
        signer: Signer,
        directory: Directory,
        max_response_bytes: int,
    ) -> None:
        """`sessions`: by name those of endpoints that may reach more than the rest; by None that of the rest."""
        self._sessions = sessions
        self._signer = signer
        self._directory = directory
        self._max_response_bytes = max_response_bytes

    async def send(self, delivery: Delivery, target: Target) -> AttemptResult:
        """Make one attempt. Every failure is a result; nothing but cancellation is raised."""
        began = time.monotonic()
        try:
            result = await self._post(delivery, target)
        except TargetRefusedError as error:
            result = AttemptResult(Answer.REFUSED, error=str(error))
        except TimeoutError:
            result = AttemptResult(Answer.TIMEOUT, error="no answer in time")
        except aiohttp.ClientConnectorDNSError as error:
            refused = isinstance(error.os_error, LookupRefusedError)
            result = AttemptResult(Answer.CONNECTION, error=str(error.os_error) if refused else "its name is not known")
        except (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch, ssl.SSLError):
            result = AttemptResult(Answer.TLS, error="no trusted TLS connection")
        except aiohttp.ClientConnectorError:
            result = AttemptResult(Answer.CONNECTION, error="no connection")
        except (aiohttp.ServerDisconnectedError, ConnectionError):
            result = AttemptResult(Answer.CONNECTION, error="the connection broke")
        except (aiohttp.ClientError, ValueError, OSError) as error:
            result = AttemptResult(Answer.PROTOCOL, error=f"not an HTTP answer ({type(error).__name__})")
        except Exception as error:
            # Whatever a stranger's answer brings about is that receiver's failure, never the end of the stage.
            _log.warning(
                "attempt failed in an unforeseen way", error=type(error).__name__, webhook_id=delivery.webhook_id
            )
            result = AttemptResult(Answer.PROTOCOL, error=f"not to be handled ({type(error).__name__})")
        return _timed(result, time.monotonic() - began)

    async def _post(self, delivery: Delivery, target: Target) -> AttemptResult:
        now = utc_now()
        signer = self._directory.signer(delivery.endpoint) or self._signer
        signed = signer.headers(delivery.webhook_id, delivery.body, now)
        headers = {**self._directory.headers(delivery.endpoint), **signed}
        session = self._sessions.get(delivery.endpoint) or self._sessions[None]
        async with session.post(target.url, data=delivery.body, headers=headers, allow_redirects=False) as response:
            status = response.status
            answer = answer_of(status)
            overloaded = status in {429, 503}
            result = AttemptResult(
                answer,
                status=status,
                error=None if answer is Answer.SUCCESS else f"HTTP status {status}",
                retry_after_s=retry_after_s(response.headers.get("retry-after"), now) if overloaded else None,
                aborted=response.headers.get("webhook-delivery", "").strip().lower() == _ABORT,
            )
            await self._discard(response)
        return result

    async def _discard(self, response: aiohttp.ClientResponse) -> None:
        """Read what is left, so that the connection can be used again; give both up when it is much or slow."""
        if response.content.at_eof():
            return
        left = self._max_response_bytes
        try:
            async with asyncio.timeout(_BODY_S):
                while left > 0 and not response.content.at_eof():
                    left -= len(await response.content.read(left))
        except (TimeoutError, aiohttp.ClientError, OSError):
            left = 0
        if not response.content.at_eof():
            response.close()


def _timed(result: AttemptResult, latency_s: float) -> AttemptResult:
    return AttemptResult(
        result.answer,
        latency_s=latency_s,
        status=result.status,
        error=result.error,
        retry_after_s=result.retry_after_s,
        aborted=result.aborted,
    )


@asynccontextmanager
async def open_sender(
    settings: NotifierSettings,
    signer: Signer,
    directory: Directory | None = None,
    *,
    resolver: AbstractResolver | None = None,
) -> AsyncIterator[Sender]:
    """A sender, and its connections while the block runs.

    Args:
        settings: bounds, allowed networks, authorities.
        signer: signs each attempt to whom has no secrets of its own.
        directory: the named endpoints, where there are any.
        resolver: looks up names; the system's when absent. Its answers are judged either way.
    """
    directory = directory or Directory({})
    lookups = open_lookups(settings.timeout_s, resolver)
    tls = ssl.create_default_context(cafile=settings.ssl_cafile)
    # A connection is used again by whoever goes to its host; one into a network that only an endpoint may reach must
    # not be found by a callback, so such an endpoint has connections of its own.
    reach = {None: settings.allowed_private_networks} | {
        name: settings.allowed_private_networks + own for name, own in directory.private_networks.items()
    }
    try:
        async with AsyncExitStack() as stack:
            sessions = {
                name: await stack.enter_async_context(_session(settings, CheckedResolver(lookups, networks), tls))
                for name, networks in reach.items()
            }
            yield Sender(sessions, signer, directory, settings.max_response_bytes)
    finally:
        await lookups.close()


def _session(settings: NotifierSettings, resolver: CheckedResolver, tls: ssl.SSLContext) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        resolver=resolver,
        use_dns_cache=False,  # every new connection is judged anew
        limit=0,  # connections are bounded per endpoint before they get here
        ssl=tls,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,  # a body is never unpacked, so a bomb stays small
        timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
        headers={"user-agent": _USER_AGENT, "content-type": "application/json"},
        skip_auto_headers=("accept-encoding",),
    )
