"""One signed test event to a receiver, over the same road as every webhook."""

import json
from ipaddress import ip_network

from notifier.attempt import Answer, AttemptResult
from notifier.delivery import Delivery
from notifier.directory import Directory
from notifier.named_endpoint import NamedEndpoint
from notifier.sender import open_sender
from notifier.settings import NotifierSettings
from notifier.signing import Signer, webhook_id
from notifier.targets import TargetRefusedError, read_target
from schemas.base import utc_now
from schemas.deliveries import DeliveryProgress

# Whoever types the command may reach this machine anyway.
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


async def send_test(
    settings: NotifierSettings, secret: str, url: str, name: str | None = None, endpoint: NamedEndpoint | None = None
) -> AttemptResult:
    """Post a `webhook.test` event.

    Args:
        settings: bounds, allowed networks.
        secret: `whsec_…`; what signs where the endpoint has no secrets of its own.
        url: the receiver.
        name: of the named endpoint that is meant.
        endpoint: that one; its headers are sent along, and it may be where it is allowed to be.

    Raises:
        UserError: a secret is not usable.
    """
    directory = Directory({name: endpoint} if name and endpoint else {})
    signer = directory.signer(name) or Signer(secret)
    own = endpoint.allow_private_networks if endpoint else ()
    allowed = (*settings.allowed_private_networks, *own, *_LOOPBACK)
    now = utc_now()
    moment = int(now.timestamp() * 1000)
    request_id = f"test-{moment}"
    data = {"request_id": request_id, "message": "voxbus can reach you"}
    event = {"type": "webhook.test", "timestamp": now.isoformat(), "data": data}
    progress = DeliveryProgress(attempts=0, due_ms=moment, release_ms=moment, first_ms=moment, partition=0, offset=0)
    body = json.dumps(event).encode()
    delivery = Delivery(request_id, body, url, (), None, progress, webhook_id(request_id, name), name)
    try:
        target = read_target(url, allowed)
    except TargetRefusedError as error:
        return AttemptResult(Answer.REFUSED, error=f"the address is refused: {error}")
    reaching = settings.model_copy(update={"allowed_private_networks": allowed})
    async with open_sender(reaching, signer, directory) as sender:
        return await sender.send(delivery, target)
