"""Which devices this machine has: CUDA devices by nvidia-smi's word, its cores, its free memory."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

# nvidia-smi takes up to some seconds on a machine with many devices whose driver sleeps.
_TIMEOUT_S = 20.0
_QUERY = ("--query-gpu=index,uuid,name,memory.free", "--format=csv,noheader,nounits")

_MEMINFO = Path("/proc/meminfo")
# What a container sees of its own control group, versions 2 and 1.
_CONTAINER = (
    tuple(Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current", "memory.stat")),
    tuple(
        Path("/sys/fs/cgroup/memory") / name
        for name in ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    ),
)
_NO_LIMIT = 1 << 60  # version 1 says so with a number


@dataclass(frozen=True, slots=True)
class Gpu:
    """One CUDA device."""

    index: int
    uuid: str
    name: str
    free_mb: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a plan is made from."""

    cores: int
    gpus: tuple[Gpu, ...] = ()
    free_mb: int | None = None  # main memory that programs can still take; None: not told here


def parse_gpus(listing: str, visible: str | None) -> tuple[Gpu, ...]:
    """Read nvidia-smi's CSV; lines it cannot read are left out.

    Args:
        listing: lines of `index, uuid, name, free memory in MiB`.
        visible: `CUDA_VISIBLE_DEVICES` of this process; None when it is not set.
    """
    gpus = []
    for line in listing.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4 and parts[0].isdigit() and parts[3].isdigit():
            gpus.append(Gpu(int(parts[0]), parts[1], parts[2], int(parts[3])))
    if visible is None:
        return tuple(gpus)
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return tuple(
        gpu
        for gpu in gpus
        if any(name == str(gpu.index) or (name[0].isalpha() and gpu.uuid.startswith(name)) for name in names)
    )


def available_mb(meminfo: str) -> int | None:
    """`MemAvailable` of /proc/meminfo's text, in MiB: free, and what caches would give back."""
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        amount = value.split()
        if name == "MemAvailable" and amount and amount[0].isdigit():
            return int(amount[0]) // 1024
    return None


def contained_mb(limit: str, used: str, stat: str) -> int | None:
    """What a container may still take, in MiB; None where it has no bound.

    Args:
        limit: of memory.max, bytes or "max" (version 1: memory.limit_in_bytes, a huge number).
        used: of memory.current (memory.usage_in_bytes), bytes.
        stat: of memory.stat; file pages that nobody uses count as used and are given back.
    """
    if not (limit.strip().isdigit() and used.strip().isdigit()) or int(limit) >= _NO_LIMIT:
        return None
    spare = next((int(line.split()[1]) for line in stat.splitlines() if line.startswith("inactive_file ")), 0)
    return max(0, int(limit) - int(used) + spare) >> 20


async def take_inventory() -> Inventory:
    """Look at this machine; one without nvidia-smi has no CUDA device we know of."""
    gpus = parse_gpus(await _listing(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    free = [available_mb(_read(_MEMINFO)), *(contained_mb(*map(_read, files)) for files in _CONTAINER)]
    return Inventory(len(os.sched_getaffinity(0)), gpus, min((mb for mb in free if mb is not None), default=None))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:  # not Linux, or no such controller
        return ""


async def _listing() -> str:
    """What nvidia-smi says; nothing where it is not there, fails or hangs."""
    try:
        process = await asyncio.create_subprocess_exec(
            "nvidia-smi", *_QUERY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            listing, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    return "" if process.returncode else listing.decode(errors="replace")
