"""Which devices this machine has: CUDA devices by nvidia-smi's word, and its cores."""

import asyncio
import os
from dataclasses import dataclass

# nvidia-smi takes up to some seconds on a machine with many devices whose driver sleeps.
_TIMEOUT_S = 20.0
_QUERY = ("--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One CUDA device."""

    index: int
    uuid: str
    name: str
    memory_mb: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a plan is made from."""

    cores: int
    gpus: tuple[Gpu, ...] = ()


def parse_gpus(listing: str, visible: str | None) -> tuple[Gpu, ...]:
    """Read nvidia-smi's CSV; lines it cannot read are left out.

    Args:
        listing: lines of `index, uuid, name, memory in MiB`.
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


async def take_inventory() -> Inventory:
    """Look at this machine; one without nvidia-smi has no CUDA device we know of."""
    cores = len(os.sched_getaffinity(0))
    try:
        process = await asyncio.create_subprocess_exec(
            "nvidia-smi", *_QUERY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return Inventory(cores)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            listing, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return Inventory(cores)
    if process.returncode:
        return Inventory(cores)
    return Inventory(cores, parse_gpus(listing.decode(errors="replace"), os.environ.get("CUDA_VISIBLE_DEVICES")))
