"""What becomes of the takes when a device's memory runs out. Pure."""

_NO_MEMORY = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
# Takes that end well before one more lane is tried again.
_CALM_TAKES = 32


def out_of_memory(error: Exception) -> bool:
    """Whether an error says so, in the words of torch, cuBLAS, cuDNN or the CPU's allocator."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


class LaneCap:
    """How many takes go on at once: halved when memory runs out, until one that cannot go on alone ends."""

    def __init__(self, lanes: int) -> None:
        self._most = lanes
        self._calm = 0
        self.now = lanes

    def halve(self, going: int) -> int:
        """Memory ran out with so many takes going; returns how many go on, 0 where the only one is to end."""
        self._calm = 0
        # One that fails alone is to blame itself, not the number of lanes.
        self.now = going // 2 or self._most
        return going // 2

    def ended_well(self) -> None:
        """A take came to its end; after many, one more lane is tried."""
        self._calm += 1
        if self._calm >= _CALM_TAKES and self.now < self._most:
            self._calm, self.now = 0, self.now + 1
