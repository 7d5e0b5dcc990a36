"""A receiver of voxbus webhooks as a FastAPI application: verifies the signature, takes each delivery once.

FastAPI is not a dependency of voxbus; run this in an environment of your own:

    pip install fastapi uvicorn standardwebhooks
    VOXBUS_NOTIFIER__SIGNING_SECRET=whsec_… uvicorn receiver_fastapi:app --port 8088
"""

import os
import sqlite3
import time
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from standardwebhooks import Webhook, WebhookVerificationError

# The sender may have several secrets, separated by spaces; `whsec_…` are the ones for HMAC.
secrets = os.environ["VOXBUS_NOTIFIER__SIGNING_SECRET"].split()
webhook = Webhook(next(secret for secret in secrets if secret.startswith("whsec_")))
app = FastAPI()

# At least once means: the same webhook-id may come again. What has been seen must survive a restart of this receiver,
# for as long as the sender may try: its default schedule takes 76 hours, up to 91 with jitter.
KEPT_S = 4 * 24 * 3_600
database = sqlite3.connect(os.environ.get("SEEN_DATABASE", "seen.sqlite3"))
database.execute("CREATE TABLE IF NOT EXISTS seen (webhook_id TEXT PRIMARY KEY, at REAL NOT NULL)")
database.execute("CREATE INDEX IF NOT EXISTS seen_at ON seen (at)")


async def verified(request: Request) -> dict[str, Any]:
    """The completion, if the sender holds our secret; verified over exactly the bytes that came."""
    try:
        completion: dict[str, Any] = webhook.verify(await request.body(), dict(request.headers))
    except WebhookVerificationError as error:
        raise HTTPException(401, str(error)) from None
    return completion


@app.post("/webhooks/speech", status_code=204)
async def speech_completed(request: Request, completion: Annotated[dict[str, Any], Depends(verified)]) -> None:
    """Take one completion. Answer within the sender's timeout, 15 s by default; longer work belongs behind a queue."""
    now = time.time()
    # One transaction: when what is done with the completion fails, its id is not kept and the sender's retry is fresh.
    # Only what is written to this same database is done exactly once; a line printed before a crash may come again.
    with database:
        database.execute("DELETE FROM seen WHERE at < ?", (now - KEPT_S,))
        seen = (request.headers["webhook-id"], now)
        fresh = database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", seen).rowcount
        if fresh:
            data = completion["data"]
            print(completion["type"], data["request_id"], data.get("audio", data.get("error")), flush=True)
