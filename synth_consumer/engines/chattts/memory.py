"""What the decode loop holds, in bytes, before anything is loaded. Pure; imports no torch."""

from dataclasses import dataclass

# Positions of a lane: 2,048 tokens of speech (44 s) and a prompt of at most 25 s of text, about 150 tokens.
LANE_POSITIONS = 2_560
# Where nobody says how many: beyond that a product's time grows with its rows.
MOST_LANES = 64
# Activations of one step, the vocoder's and torch's own pools, per lane.
_WORK_PER_LANE = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Of the language model; defaults are the published one's."""

    layers: int = 20
    hidden: int = 768
    intermediate: int = 3_072
    text_tokens: int = 21_178
    audio_tokens: int = 626
    codebooks: int = 4
    bytes_per_value: int = 4  # 2 for bfloat16 and float16

    @property
    def position_bytes(self) -> int:
        """Keys and values of one token in all layers: 122,880 in the published model."""
        return 2 * self.layers * self.hidden * self.bytes_per_value

    @property
    def weight_bytes(self) -> int:
        """Transformer, embeddings, heads; without decoder and vocoder."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.intermediate + 2 * self.hidden
        tables = 2 * self.hidden * (self.text_tokens + self.codebooks * self.audio_tokens)
        return (self.layers * layer + tables) * self.bytes_per_value

    def lane_bytes(self, positions: int = LANE_POSITIONS) -> int:
        """A lane in full use: cache, noise, hidden states that wait for the vocoder, work memory."""
        noise = 4 * self.codebooks * self.audio_tokens
        return positions * self.position_bytes + noise + _WORK_PER_LANE


def lanes_that_fit(free_bytes: int, wanted: int, dimensions: Dimensions, positions: int = LANE_POSITIONS) -> int:
    """The most lanes that fit beside the weights, at most as many as wanted; 0 where not even one fits.

    Args:
        free_bytes: of the device, weights not loaded yet.
        wanted: lanes.
        dimensions: of the model.
        positions: of each lane.
    """
    return max(0, min(wanted, (free_bytes - dimensions.weight_bytes) // dimensions.lane_bytes(positions)))
