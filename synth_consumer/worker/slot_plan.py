"""How many slots this worker has, on which devices, with how many lanes. Pure.

The rules, when nothing is set by hand:

- `espeak` and `tone` compute on the CPU, one thread each: half of the cores become slots, as the bus, the uploader and
  the engines share a small machine; at least one.
- `chattts` on CUDA: each device holds as many slots as fit its memory, at most `_MOST_SLOTS_PER_GPU`. One process
  cannot fill a device, as 11 to 15 ms of each step are dispatch on the CPU; more than a few only share it out.
- `chattts` on the CPU: one slot, as torch itself uses every core.
"""

from dataclasses import dataclass, field

from synth_consumer.engines.chattts.memory import Dimensions
from synth_consumer.worker.devices import Gpu, Inventory
from synth_consumer.worker.settings import SynthSettings

# ChatTTS, measured: 1.12 GB of weights in fp32 and about as much of CUDA context and libraries; rounded up.
_MODEL_MB = 3_000
# KV cache, 123 kB a position in fp32, and work memory.
_LANE_MB = -(-Dimensions().lane_bytes() // 2**20)
# Fragmentation, other processes.
_USABLE = 0.9
_MOST_SLOTS_PER_GPU = 4


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """One slot: a consumer and an engine process."""

    index: int
    device: str  # for people: "cpu", or the name of a GPU
    lanes: int | None  # None: the engine's own setting
    environment: dict[str, str] = field(default_factory=dict)  # for the engine process


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """All slots of a worker, and why they are as they are."""

    slots: tuple[SlotSpec, ...]
    reason: str


def plan_slots(settings: SynthSettings, inventory: Inventory) -> SlotPlan:
    """Make the plan for the engine of the settings; `slots` and `lanes` set by hand go before the rules."""
    if settings.engine == "chattts" and settings.chattts.device != "cpu":
        gpus = inventory.gpus if settings.chattts.device in {"auto", "cuda"} else ()
        if gpus:
            return _on_gpus(settings, gpus)
        if settings.chattts.device != "auto":
            return _pinned(settings)
    return _on_cpu(settings, inventory.cores)


def partition_warning(slots: int, partitions: int, *, topic: str) -> str | None:
    """What to say when slots of this worker alone would stand idle; None when every slot can get a partition."""
    if slots <= partitions:
        return None
    return (
        f"{slots} slots share {partitions} partitions of {topic}: {slots - partitions} slots stay idle; "
        f"add partitions to the job topics, or set VOXBUS_SYNTH__SLOTS={partitions}"
    )


def _on_gpus(settings: SynthSettings, gpus: tuple[Gpu, ...]) -> SlotPlan:
    places: list[tuple[Gpu, int]] = []  # device and lanes of a slot on it, in the order of the slots
    reasons = []
    for gpu in gpus:
        count, lanes = _held(settings, gpu.memory_mb)
        reasons.append(f"{gpu.name} ({gpu.memory_mb} MB) holds {count} slots of {lanes} lanes")
        places += [(gpu, lanes)] * count
    if settings.slots is not None:
        places = [places[i % len(places)] for i in range(settings.slots)] if places else []
        reasons.append(f"VOXBUS_SYNTH__SLOTS={settings.slots}")
    slots = tuple(
        SlotSpec(i, f"cuda:{gpu.index} {gpu.name}", lanes, {"CUDA_VISIBLE_DEVICES": gpu.uuid})
        for i, (gpu, lanes) in enumerate(places)
    )
    return SlotPlan(slots, "; ".join(reasons))


def _held(settings: SynthSettings, memory_mb: int) -> tuple[int, int]:
    """Slots on a device and lanes of each; no slots when not even one lane fits."""
    usable = int(memory_mb * _USABLE)
    most_lanes = (usable - _MODEL_MB) // _LANE_MB
    if most_lanes < 1:
        return 0, 0
    lanes = min(settings.lanes or settings.chattts.lanes, most_lanes)
    return min(_MOST_SLOTS_PER_GPU, usable // (_MODEL_MB + lanes * _LANE_MB)), lanes


def _pinned(settings: SynthSettings) -> SlotPlan:
    device = settings.chattts.device
    slots = tuple(SlotSpec(i, device, settings.lanes) for i in range(settings.slots or 1))
    return SlotPlan(slots, f"VOXBUS_SYNTH__CHATTTS__DEVICE={device}")


def _on_cpu(settings: SynthSettings, cores: int) -> SlotPlan:
    torch_spreads = settings.engine == "chattts"
    if settings.slots is not None:
        count, reason = settings.slots, f"VOXBUS_SYNTH__SLOTS={settings.slots}"
    elif torch_spreads:
        count, reason = 1, f"one engine uses all {cores} cores"
    else:
        count, reason = max(1, cores // 2), f"half of {cores} cores"
    # Without a bound, every process would start a thread per core.
    environment = {"OMP_NUM_THREADS": str(max(1, cores // count))} if torch_spreads and count > 1 else {}
    return SlotPlan(tuple(SlotSpec(i, "cpu", settings.lanes, environment) for i in range(count)), reason)
