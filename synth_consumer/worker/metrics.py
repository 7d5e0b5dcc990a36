"""Prometheus metrics of the worker. Labels come from closed lists: codes and results."""

from prometheus_client import Counter, Gauge

SLOTS = Gauge("voxbus_synth_slots", "Device slots of this worker, by state.", ["state"])
LANES = Gauge("voxbus_synth_lanes", "Lanes of all engines that are up.")
LANES_BUSY = Gauge("voxbus_synth_lanes_busy", "Lanes that hold a take now.")
AUDIO_SECONDS = Counter("voxbus_synth_audio_seconds_total", "Seconds of audio in finished takes.")
TAKES = Counter("voxbus_synth_takes_total", "Takes ended.", ["result"])
ENGINE_RESTARTS = Counter("voxbus_synth_engine_restarts_total", "Engine processes lost and replaced.", ["code"])
STEPS = Counter("voxbus_synth_steps_total", "Steps of all engines.")
STEP_SECONDS = Counter("voxbus_synth_step_seconds_total", "Seconds spent in the engines' steps.")
