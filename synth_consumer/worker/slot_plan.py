"""How many slots this worker has, on which devices, with how many lanes. Pure.

The rules, when nothing is set by hand:

- `espeak` and `tone` compute on the CPU, one thread each: half of the cores become slots, as the bus, the uploader and
  the engines share a small machine; at least one.
- `chattts` on CUDA: as many lanes as fit the device's free memory, at most `MOST_LANES`, and as many slots of so many
  lanes as fit, at most `_MOST_SLOTS_PER_GPU`. One process cannot fill a device, as 11 to 15 ms of each step are
  dispatch on the CPU; more than a few only share it out.
- `chattts` on the CPU: one slot, as torch itself uses every core, with as many lanes as fit the free memory.
"""

from dataclasses import dataclass, field

from synth_consumer.engines.chattts.memory import MOST_LANES, Dimensions
from synth_consumer.worker.devices import Gpu, Inventory
from synth_consumer.worker.settings import SynthSettings

# What a process takes beside language model and lanes: decoder, vocoder and tokenizer; torch's libraries, and on a
# GPU its context of about 1 GB.
_PROCESS_MB = {"cuda": 1_500, "cpu": 1_000}
# Fragmentation, other processes.
_USABLE = 0.9
_MOST_SLOTS_PER_GPU = 4
# Where the system does not tell its free memory.
_CAREFUL_LANES = 8


@dataclass(frozen=True, slots=True)
class Needs:
    """What ChatTTS takes of a device, in MiB."""

    process_mb: int
    weights_mb: int
    lane_mb: int

    def slot_mb(self, lanes: int) -> int:
        """A slot with so many lanes."""
        return self.process_mb + self.weights_mb + lanes * self.lane_mb

    def lanes_in(self, memory_mb: int) -> int:
        """The most lanes of a slot that has so much; 0 where not even one fits."""
        return max(0, (memory_mb - self.slot_mb(0)) // self.lane_mb)


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What was measured of a device, and what follows."""

    name: str
    free_mb: int
    needs: Needs
    slots: int
    lanes: int  # of each slot


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
    devices: tuple[DevicePlan, ...] = ()  # those that were measured


def plan_slots(settings: SynthSettings, inventory: Inventory) -> SlotPlan:
    """Make the plan for the engine of the settings; `slots` and `lanes` set by hand go before the rules."""
    if settings.engine == "chattts" and settings.chattts.device != "cpu":
        gpus = inventory.gpus if settings.chattts.device in {"auto", "cuda"} else ()
        if gpus:
            return _on_gpus(settings, gpus)
        if settings.chattts.device != "auto":
            return _pinned(settings)
    return _on_cpu(settings, inventory)


def needs_of(settings: SynthSettings, device: str) -> Needs:
    """What a slot takes on "cuda" or "cpu", from the published model's dimensions and the precision."""
    half = settings.chattts.precision in ("bfloat16", "float16")
    dimensions = Dimensions(bytes_per_value=2 if half else 4)
    # On a GPU the package's own weights, always float32, are beside ours while it loads; on the CPU in a mapped file.
    own = Dimensions().weight_bytes if device == "cuda" else 0
    return Needs(_PROCESS_MB[device], _mb(dimensions.weight_bytes + own), _mb(dimensions.lane_bytes()))


def partition_warning(slots: int, partitions: int, *, topic: str) -> str | None:
    """What to say when slots of this worker alone would stand idle; None when every slot can get a partition."""
    if slots <= partitions:
        return None
    return (
        f"{slots} slots share {partitions} partitions of {topic}: {slots - partitions} slots stay idle; "
        f"add partitions to the job topics, or set VOXBUS_SYNTH__SLOTS={partitions}"
    )


def _on_gpus(settings: SynthSettings, gpus: tuple[Gpu, ...]) -> SlotPlan:
    needs = needs_of(settings, "cuda")
    holding = [gpu for gpu in gpus if needs.lanes_in(_usable(gpu.free_mb))]
    by_hand = settings.slots
    devices = []
    for gpu in gpus:
        # By hand, slots go round: the first devices get one more where they do not come out even.
        asked = None if by_hand is None else len(range(_place(gpu, holding), by_hand, len(holding) or 1))
        count, lanes = _held(settings, gpu.free_mb, needs, asked) if gpu in holding else (0, 0)
        devices.append(DevicePlan(f"cuda:{gpu.index} {gpu.name}", gpu.free_mb, needs, count, lanes))
    reasons = [f"{device.name} ({device.free_mb} MB free) holds {_in_words(device)}" for device in devices]
    if by_hand is not None:
        reasons.append(f"VOXBUS_SYNTH__SLOTS={by_hand}")
    places = [(gpu, device) for gpu, device in zip(gpus, devices, strict=True) for _ in range(device.slots)]
    slots = tuple(
        SlotSpec(i, device.name, device.lanes, {"CUDA_VISIBLE_DEVICES": gpu.uuid})
        for i, (gpu, device) in enumerate(places)
    )
    return SlotPlan(slots, "; ".join(reasons), tuple(devices))


def _place(gpu: Gpu, holding: list[Gpu]) -> int:
    return holding.index(gpu) if gpu in holding else 0


def _held(settings: SynthSettings, free_mb: int, needs: Needs, asked: int | None) -> tuple[int, int]:
    """Slots on a device and lanes of each, where at least one lane fits.

    Slots by hand share the device; they have a lane each even where that is too much for it, and the engine tells.
    """
    usable = _usable(free_mb)
    share = usable // asked if asked else usable
    lanes = max(1, min(_wanted(settings) or MOST_LANES, needs.lanes_in(share)))
    return min(_MOST_SLOTS_PER_GPU, usable // needs.slot_mb(lanes)) if asked is None else asked, lanes


def _pinned(settings: SynthSettings) -> SlotPlan:
    device = settings.chattts.device
    slots = tuple(SlotSpec(i, device, _wanted(settings)) for i in range(settings.slots or 1))
    return SlotPlan(slots, f"VOXBUS_SYNTH__CHATTTS__DEVICE={device}; without lanes set, the engine measures it")


def _on_cpu(settings: SynthSettings, inventory: Inventory) -> SlotPlan:
    torch_spreads, cores = settings.engine == "chattts", inventory.cores
    if settings.slots is not None:
        count, reason = settings.slots, f"VOXBUS_SYNTH__SLOTS={settings.slots}"
    elif torch_spreads:
        count, reason = 1, f"one engine uses all {cores} cores"
    else:
        count, reason = max(1, cores // 2), f"half of {cores} cores"
    # Without a bound, every process would start a thread per core.
    environment = {"OMP_NUM_THREADS": str(max(1, cores // count))} if torch_spreads and count > 1 else {}
    devices = _measured_cpu(settings, inventory.free_mb, count) if torch_spreads else ()
    lanes = settings.lanes
    if torch_spreads:
        lanes = devices[0].lanes if devices else _wanted(settings) or _CAREFUL_LANES
    slots = tuple(SlotSpec(i, "cpu", lanes, environment) for i in range(count))
    return SlotPlan(slots, reason, devices)


def _measured_cpu(settings: SynthSettings, free_mb: int | None, slots: int) -> tuple[DevicePlan, ...]:
    """Lanes of each slot: by hand, or as many as fit; one where none does, as a system may swap."""
    if free_mb is None:
        return ()
    needs = needs_of(settings, "cpu")
    lanes = _wanted(settings) or max(1, min(MOST_LANES, needs.lanes_in(_usable(free_mb) // slots)))
    return (DevicePlan("cpu", free_mb, needs, slots, lanes),)


def _wanted(settings: SynthSettings) -> int | None:
    return settings.lanes or settings.chattts.lanes


def _usable(free_mb: int) -> int:
    return int(free_mb * _USABLE)


def _mb(count: int) -> int:
    return -(-count // 2**20)


def _in_words(device: DevicePlan) -> str:
    return f"{device.slots} slots of {device.lanes} lanes" if device.slots else "no slot"
