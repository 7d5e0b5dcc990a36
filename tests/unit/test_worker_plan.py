"""Slot plans from settings and inventories."""

from pathlib import Path

import pytest

from synth_consumer.engines.settings import ChatttsSettings
from synth_consumer.worker.devices import Gpu, Inventory, available_mb, contained_mb, parse_gpus, take_inventory
from synth_consumer.worker.settings import SynthSettings
from synth_consumer.worker.slot_plan import needs_of, partition_warning, plan_slots

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


def test_each_device_holds_what_its_free_memory_does() -> None:
    plan = plan_slots(_CHATTTS, Inventory(16, (_H200, _T4)))
    slots = [(slot.environment["CUDA_VISIBLE_DEVICES"], slot.lanes) for slot in plan.slots]
    assert slots == [("GPU-aaa", 64)] * 4 + [("GPU-bbb", 33)]
    for device in plan.devices:
        used = device.slots * device.needs.slot_mb(device.lanes)
        assert used <= device.free_mb * 0.9, device.name


@pytest.mark.parametrize("free_mb", range(1_000, 150_000, 3_777))
@pytest.mark.parametrize("precision", ["exact", "bfloat16"])
@pytest.mark.parametrize(("lanes", "slots"), [(None, None), (5, None), (None, 3)])
def test_what_is_planned_fits(free_mb: int, precision: str, lanes: int | None, slots: int | None) -> None:
    values = {"engine": "chattts", "lanes": lanes, "slots": slots, "chattts": {"precision": precision}}
    settings = SynthSettings.model_validate(values)
    (device,) = plan_slots(settings, Inventory(16, (Gpu(0, "g", "g", free_mb),))).devices
    one = device.needs.slot_mb(1)
    assert (device.slots > 0) == (free_mb * 0.9 >= one)
    if device.lanes > 1 or slots is None:
        assert device.slots * device.needs.slot_mb(device.lanes) <= free_mb * 0.9
    assert device.lanes <= (lanes or 64)


def test_half_precision_halves_a_lane_but_keeps_the_packages_weights() -> None:
    half = SynthSettings(engine="chattts", chattts=ChatttsSettings(precision="bfloat16"))
    exact, less = needs_of(_CHATTTS, "cuda"), needs_of(half, "cuda")
    assert (exact.lane_mb, less.lane_mb) == (317, 167)
    assert less.weights_mb == pytest.approx(exact.weights_mb * 3 / 4, abs=2)
    assert needs_of(_CHATTTS, "cpu").weights_mb == pytest.approx(exact.weights_mb / 2, abs=1)


def test_lanes_shrink_to_a_small_device_and_a_tiny_one_is_left_out() -> None:
    small, tiny = Gpu(0, "s", "small", 5_000), Gpu(1, "t", "tiny", 2_000)
    plan = plan_slots(SynthSettings(engine="chattts", lanes=32), Inventory(4, (small, tiny)))
    assert [(slot.device, slot.lanes) for slot in plan.slots] == [("cuda:0 small", 4)]
    nothing = plan_slots(_CHATTTS, Inventory(4, (tiny,)))
    assert nothing.slots == ()
    assert "tiny (2000 MB free) holds no slot" in nothing.reason


def test_slots_by_hand_go_round_the_devices_and_share_each() -> None:
    twins = tuple(Gpu(n, f"g{n}", "twin", 40_000) for n in range(2))
    plan = plan_slots(SynthSettings(engine="chattts", slots=3), Inventory(4, twins))
    by_device = [(device.slots, device.lanes) for device in plan.devices]
    assert by_device[0][0] == 2
    assert by_device[1] == (1, 64)
    assert 40 < by_device[0][1] < 64
    assert len(plan.slots) == 3


@pytest.mark.parametrize(("free_mb", "lanes"), [(None, 8), (500, 1), (6_000, 11), (500_000, 64)])
def test_lanes_on_the_cpu_are_what_fits_its_free_memory(free_mb: int | None, lanes: int) -> None:
    plan = plan_slots(_CHATTTS, Inventory(16, (), free_mb))
    assert [slot.lanes for slot in plan.slots] == [lanes]


def test_available_memory_is_read() -> None:
    text = "MemTotal:       16384000 kB\nMemFree:  1 kB\nMemAvailable:    8192000 kB\n"
    assert available_mb(text) == 8_000
    assert available_mb("MemTotal: 5 kB\nMemAvailable:\n") is None


@pytest.mark.parametrize(
    ("limit", "used", "stat", "left_mb"),
    [
        ("4294967296\n", "1073741824\n", "anon 5\ninactive_file 536870912\n", 3_584),
        ("1048576\n", "2097152\n", "", 0),
        ("max\n", "1073741824\n", "", None),
        ("9223372036854771712\n", "1073741824\n", "", None),
        ("", "", "", None),
    ],
)
def test_a_container_takes_no_more_than_its_bound(limit: str, used: str, stat: str, left_mb: int | None) -> None:
    assert contained_mb(limit, used, stat) == left_mb


async def test_the_inventory_knows_the_containers_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tuple(tmp_path / name for name in ("max", "current", "stat"))
    for path, text in zip(files, ("1073741824", "536870912", "inactive_file 0"), strict=True):
        path.write_text(text)
    monkeypatch.setattr("synth_consumer.worker.devices._CONTAINER", (files,))

    assert (await take_inventory()).free_mb == 512


async def test_the_inventory_asks_nvidia_smi_for_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch, 'case "$1" in *memory.free*) echo "0, GPU-x, NVIDIA H200, 140000";; esac')
    inventory = await take_inventory()
    assert inventory.gpus == (Gpu(0, "GPU-x", "NVIDIA H200", 140_000),)
    assert inventory.cores >= 1


async def test_a_failing_nvidia_smi_is_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch, 'echo "0, GPU-x, NVIDIA H200, 140000"; exit 9')
    assert (await take_inventory()).gpus == ()


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


def fake_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
