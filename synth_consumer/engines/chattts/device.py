"""The decode loop on a device: with as many lanes as its memory holds."""

from typing import Any

import torch

from synth_consumer.engines.chattts.decode import Decoder
from synth_consumer.engines.chattts.memory import LANE_POSITIONS, Dimensions, lanes_that_fit
from synth_consumer.engines.chattts.weights import fuse, let_go
from synth_consumer.engines.protocol import EngineUnavailableError

# Of a device's free memory; the rest is for the vocoder's pieces and for fragmentation.
_USABLE = 0.9


def make_decoder(chat: Any, precision: str, lanes: int) -> Decoder:
    """Take the language model over from the package.

    Args:
        chat: loaded; it infers nothing any more from here on.
        precision: see `weights.DTYPES`.
        lanes: the most; on a GPU as many of them as fit.

    Raises:
        EngineUnavailableError: not one lane fits, or the precision is not for this device.
    """
    if precision == "int8" and chat.device.type != "cpu":
        raise EngineUnavailableError(
            f"precision int8 is for the CPU, this is {chat.device}; "
            "set VOXBUS_SYNTH__CHATTTS__PRECISION=float16 there, or exact"
        )
    model = fuse(chat, precision)
    let_go(chat)
    if chat.device.type == "cuda":
        lanes = _lanes_on(chat.device, model.norm.element_size(), lanes)
    return Decoder(model, lanes, LANE_POSITIONS)


def _lanes_on(device: torch.device, bytes_per_value: int, wanted: int) -> int:
    """As many of the lanes as the device's memory holds, now that the weights are there."""
    dimensions = Dimensions(bytes_per_value=bytes_per_value)
    torch.cuda.empty_cache()  # what the package let go of
    free: int = torch.cuda.mem_get_info(device)[0]
    lanes = lanes_that_fit(int(free * _USABLE) + dimensions.weight_bytes, wanted, dimensions)
    if lanes == 0:
        raise EngineUnavailableError(
            f"{device} has {free >> 20} MB free, less than one lane of ChatTTS needs "
            f"({dimensions.lane_bytes() >> 20} MB); free some, or set VOXBUS_SYNTH__CHATTTS__DEVICE=cpu"
        )
    return lanes
