"""A receiver of voxbus webhooks as a FastAPI application: verifies the signature, takes each delivery once.

FastAPI is not a dependency of voxbus; run this in an environment of your own:

    pip install fastapi uvicorn standardwebhooks
    VOXBUS_NOTIFIER__SIGNING_SECRET=whsec_… uvicorn receiver_fastapi:app --port 8088
"""

import os
import sqlite3
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["VOXBUS_NOTIFIER__SIGNING_SECRET"].split()[0])
app = FastAPI()

# At least once means: the same webhook-id may come again. What has been seen must survive a restart of this receiver,
# and is best written in the same transaction as whatever is done with the completion.
database = sqlite3.connect(os.environ.get("SEEN_DATABASE", "seen.sqlite3"), check_same_thread=False)
database.execute("CREATE TABLE IF NOT EXISTS seen (webhook_id TEXT PRIMARY KEY)")


async def verified(request: Request) -> dict[str, Any]:
    """The completion, if the sender holds our secret; verified over exactly the bytes that came."""
    try:
        completion: dict[str, Any] = webhook.verify(await request.body(), dict(request.headers))
    except WebhookVerificationError as error:
        raise HTTPException(401, str(error)) from None
    return completion


@app.post("/webhooks/speech", status_code=204)
async def speech_completed(request: Request, completion: Annotated[dict[str, Any], Depends(verified)]) -> None:
    """Take one completion. Answer quickly; longer work belongs behind a queue of your own."""
    with database:
        fresh = database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (request.headers["webhook-id"],)).rowcount
        if fresh:
            data = completion["data"]
            print(completion["type"], data["request_id"], data.get("audio", data.get("error")), flush=True)
