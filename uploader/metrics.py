"""Metrics of the uploader; formats are a closed list, so they may be labels."""

from prometheus_client import Counter, Gauge, Histogram

TAKES = Counter("voxbus_uploader_takes_total", "Takes that ended, by how.", ["result"])
STORED_BYTES = Counter("voxbus_uploader_stored_bytes_total", "Bytes of new objects.", ["format"])
STORED_SECONDS = Counter("voxbus_uploader_stored_audio_seconds_total", "Seconds of audio in new objects.", ["format"])
ENCODING = Histogram("voxbus_uploader_encoding_seconds", "Making one file.", ["format"])
STORING = Histogram("voxbus_uploader_storing_seconds", "Bringing one file into object storage.", ["format"])
STORAGE_RETRIES = Counter("voxbus_uploader_storage_retries_total", "Storage operations tried again.", ["operation"])
SPOOL_BYTES = Gauge("voxbus_uploader_spool_bytes", "Audio of unfinished takes.", ["place"])
GROWING_TAKES = Gauge("voxbus_uploader_growing_takes", "Takes whose chunks are still coming.")
CACHE_WRITES = Counter("voxbus_uploader_cache_writes_total", "Cache entries written, or not.", ["result"])
CDN_REFRESHES = Counter("voxbus_uploader_cdn_refreshes_total", "CDN refreshes, by how they ended.", ["result"])
