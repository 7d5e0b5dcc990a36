"""Which named endpoints there are, which of them are disabled, and when one is to be. No I/O."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from notifier.attempt import Answer, AttemptResult
from notifier.named_endpoint import NamedEndpoint
from notifier.settings import Network
from notifier.signing import Signer
from notifier.targets import EndpointDisabledError, TargetRefusedError
from schemas.endpoints import EndpointChanged

# A failure is told to the others when it has lasted for this share of the time to be disabled after: not every hiccup
# is worth an event, and what a restart forgets stays small.
_TELL_AFTER = 0.01


class Directory:
    """The named endpoints of one notifier. Their states are shared through `tts.endpoints`."""

    def __init__(self, endpoints: Mapping[str, NamedEndpoint], *, disable_after_s: float = 432_000.0) -> None:
        """Read the secrets.

        Args:
            endpoints: from `read_endpoints`.
            disable_after_s: without a success for so long, an endpoint is disabled.

        Raises:
            UserError: a secret is not usable.
        """
        self._endpoints = endpoints
        self._disable_after = timedelta(seconds=disable_after_s)
        self._signers = {
            name: Signer(
                " ".join(secret.get_secret_value() for secret in endpoint.secrets), f"endpoints.{name}.secrets"
            )
            for name, endpoint in endpoints.items()
            if endpoint.secrets
        }
        self._headers = {
            name: {header: value.get_secret_value() for header, value in endpoint.headers.items()}
            for name, endpoint in endpoints.items()
        }
        self._states: dict[str, EndpointChanged] = {}
        self._echoes: dict[str, EndpointChanged] = {}  # our own newest word, until it is read from the topic
        self._failing: dict[str, datetime] = {}  # since when, as this notifier saw it

    def __len__(self) -> int:
        return len(self._endpoints)

    def names_for(self, event_type: str) -> list[str]:
        """Enabled endpoints that want completions of this kind."""
        return [
            name
            for name, endpoint in self._endpoints.items()
            if endpoint.wants(event_type) and not self._disabled(name)
        ]

    def endpoint(self, name: str) -> NamedEndpoint:
        """An endpoint that is to be delivered to.

        Raises:
            EndpointDisabledError: it is disabled.
            TargetRefusedError: it is no longer in the file.
        """
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            raise TargetRefusedError(f"there is no endpoint {name} any more")
        if self._disabled(name):
            raise EndpointDisabledError(f"the endpoint {name} is disabled")
        return endpoint

    def signer(self, name: str | None) -> Signer | None:
        """Signs with the endpoint's own secrets; None when it has none of its own."""
        return self._signers.get(name) if name else None

    def headers(self, name: str | None) -> Mapping[str, str]:
        """What is sent along to this endpoint."""
        return self._headers.get(name, {}) if name else {}

    @property
    def public_keys(self) -> dict[str, list[str]]:
        """`whpk_…` of the ed25519 keys of each endpoint that has some of its own, for its receivers; nothing secret."""
        return {name: signer.public_keys for name, signer in self._signers.items() if signer.public_keys}

    @property
    def private_networks(self) -> dict[str, tuple[Network, ...]]:
        """What endpoints may reach beside all others, where they may."""
        found = {name: endpoint.allow_private_networks for name, endpoint in self._endpoints.items()}
        return {name: networks for name, networks in found.items() if networks}

    def heard(self, change: EndpointChanged) -> None:
        """A change on `tts.endpoints`, from whichever notifier or command; the last of the topic holds."""
        own = self._echoes.get(change.name)
        if own is not None and own != change:
            return  # stands before our own word, which is already reckoned with
        self._echoes.pop(change.name, None)
        self._learn(change)

    def _learn(self, change: EndpointChanged) -> None:
        self._states[change.name] = change
        if change.failing_since is None:
            self._failing.pop(change.name, None)

    def judge(self, name: str, result: AttemptResult, now: datetime) -> EndpointChanged | None:
        """Learn from an attempt.

        Returns:
            What the other notifiers should hear, and is already reckoned with here.
        """
        state = self._states.get(name)
        if name not in self._endpoints or (state is not None and state.disabled):
            return None
        if result.answer is Answer.REFUSED:
            return None  # by us; the endpoint had no part in it
        change: EndpointChanged | None = None
        if result.answer is Answer.GONE:
            change = EndpointChanged(name=name, disabled=True, reason="it answered 410: it wants no more", at=now)
        elif result.answer is Answer.SUCCESS:
            self._failing.pop(name, None)
            if state is not None and state.failing_since is not None:
                change = EndpointChanged(name=name, at=now)
        else:
            change = self._failed(name, state, now)
        if change is not None:
            self._learn(change)
            self._echoes[name] = change
        return change

    def _failed(self, name: str, state: EndpointChanged | None, now: datetime) -> EndpointChanged | None:
        told = state.failing_since if state is not None else None
        since = told or self._failing.setdefault(name, now)
        if told is not None and now - since >= self._disable_after:
            reason = f"no delivery succeeded since {since.isoformat(timespec='seconds')}"
            return EndpointChanged(name=name, disabled=True, reason=reason, at=now)
        if told is None and now - since >= self._disable_after * _TELL_AFTER:
            return EndpointChanged(name=name, failing_since=since, at=now)
        return None

    def _disabled(self, name: str) -> bool:
        state = self._states.get(name)
        return state is not None and state.disabled
