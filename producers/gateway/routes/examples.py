"""One request in the words of the OpenAPI document: asked, begun, on its way, completed."""

ID = "01JDCM5W3T8Z6N9QK4R7V2X1YB"
FINGERPRINT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
URL = "https://cdn.example/voxbus/9f/86/9f86d081884c7d65.mp3"
AUDIO = {
    "url": URL,
    "format": "mp3",
    "bytes": 17_280,
    "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "duration_s": 2.16,
    "sample_rate": 24_000,
    "truncated": False,
}
COMPLETION = {
    "type": "speech.completed",
    "timestamp": "2026-11-23T22:00:00Z",
    "data": {
        "request_id": ID,
        "status": "completed",
        "fingerprint": FINGERPRINT,
        "cached": True,
        "audio": AUDIO,
        "engine": {"name": "espeak", "revision": "1", "seed": 1_602_654_337},
        "timings_ms": {"queued": 0, "synthesis": 0, "upload": 0, "total": 0},
        "metadata": {},
    },
}
STARTED = {
    "event": "started",
    "request_id": ID,
    "fingerprint": FINGERPRINT,
    "sample_rate": 24_000,
    "channels": 1,
    "encoding": "pcm_s16le",
    "offset": 0,
    "cached": False,
}
SPEECH = {"text": "您好,请问有什么可以帮您?", "voice": "female1", "format": "mp3"}
STATUS = {
    "request_id": ID,
    "state": "synthesizing",
    "percent": 42,
    "at": "2026-11-23T22:00:00Z",
    "fingerprint": FINGERPRINT,
    "cached": False,
}
CANCELLED = {**STATUS, "state": "cancelled", "percent": 100}
