"""Makes the engine of a slot, within its engine process. Imports nothing of the bus: a lost engine is back sooner."""

from synth_consumer.engines.protocol import SpeechEngine
from synth_consumer.engines.registry import create
from synth_consumer.worker.settings import SynthSettings

FACTORY = f"{__name__}:make_engine"


def make_engine(settings: str) -> SpeechEngine:
    """The engine that the JSON of a slot's `SynthSettings` names."""
    synth = SynthSettings.model_validate_json(settings)
    return create(synth.engine, synth, synth.lanes)
