"""Slot plans from settings and inventories."""

import pytest

from synth_consumer.engines.settings import ChatttsSettings
from synth_consumer.worker.devices import Gpu, Inventory, parse_gpus
from synth_consumer.worker.settings import SynthSettings
from synth_consumer.worker.slot_plan import partition_warning, plan_slots

_LISTING = "0, GPU-aaa, NVIDIA H200, 143771\n1, GPU-bbb, NVIDIA T4, 15360\nnot a device\n"
_H200, _T4 = Gpu(0, "GPU-aaa", "NVIDIA H200", 143_771), Gpu(1, "GPU-bbb", "NVIDIA T4", 15_360)
_CHATTTS = SynthSettings(engine="chattts")


@pytest.mark.parametrize(
    ("visible", "found"),
    [(None, (_H200, _T4)), ("", ()), ("1", (_T4,)), ("GPU-a", (_H200,)), ("1,0", (_H200, _T4)), ("7", ())],
)
def test_devices_are_read_and_hidden_ones_left_out(visible: str | None, found: tuple[Gpu, ...]) -> None:
    assert parse_gpus(_LISTING, visible) == found


@pytest.mark.parametrize(("cores", "slots"), [(1, 1), (2, 1), (3, 1), (8, 4), (64, 32)])
def test_half_of_the_cores_become_slots(cores: int, slots: int) -> None:
    plan = plan_slots(SynthSettings(engine="espeak"), Inventory(cores, (_H200,)))
    assert [(slot.index, slot.device, slot.lanes) for slot in plan.slots] == [(n, "cpu", None) for n in range(slots)]
    assert f"half of {cores} cores" in plan.reason


def test_each_device_holds_what_its_memory_does() -> None:
    plan = plan_slots(_CHATTTS, Inventory(16, (_H200, _T4)))
    by_device = [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in plan.slots]
    assert by_device == ["GPU-aaa"] * 4 + ["GPU-bbb"] * 2
    assert {slot.lanes for slot in plan.slots} == {8}


def test_lanes_shrink_to_a_small_device_and_a_tiny_one_is_left_out() -> None:
    small, tiny = Gpu(0, "s", "small", 5_000), Gpu(1, "t", "tiny", 2_000)
    plan = plan_slots(SynthSettings(engine="chattts", lanes=32), Inventory(4, (small, tiny)))
    assert [(slot.device, slot.lanes) for slot in plan.slots] == [("cuda:0 small", 4)]
    nothing = plan_slots(_CHATTTS, Inventory(4, (tiny,)))
    assert nothing.slots == ()
    assert "tiny" in nothing.reason


def test_settings_by_hand_go_first() -> None:
    by_hand = SynthSettings(engine="chattts", slots=3, lanes=2)
    on_gpus = plan_slots(by_hand, Inventory(16, (_T4,)))
    assert [(slot.lanes, slot.environment["CUDA_VISIBLE_DEVICES"]) for slot in on_gpus.slots] == [(2, "GPU-bbb")] * 3
    on_cpu = plan_slots(by_hand, Inventory(6))
    assert [(slot.lanes, slot.environment) for slot in on_cpu.slots] == [(2, {"OMP_NUM_THREADS": "2"})] * 3
    assert len(plan_slots(SynthSettings(engine="tone", slots=5), Inventory(2)).slots) == 5


def test_torch_on_the_cpu_is_one_slot_and_a_named_device_is_kept() -> None:
    assert len(plan_slots(_CHATTTS, Inventory(16)).slots) == 1
    named = SynthSettings(engine="chattts", chattts=ChatttsSettings(device="cuda:1"))
    assert [slot.device for slot in plan_slots(named, Inventory(16, (_H200, _T4))).slots] == ["cuda:1"]
    on_cpu = SynthSettings(engine="chattts", chattts=ChatttsSettings(device="cpu"))
    assert [slot.device for slot in plan_slots(on_cpu, Inventory(16, (_H200,))).slots] == ["cpu"]


def test_idle_slots_are_named_with_the_way_out() -> None:
    assert partition_warning(4, 4, topic="t") is None
    warning = partition_warning(6, 4, topic="tts.jobs.bulk")
    assert warning is not None
    assert all(part in warning for part in ("6 slots", "4 partitions", "tts.jobs.bulk", "VOXBUS_SYNTH__SLOTS=4"))
