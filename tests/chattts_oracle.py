"""ChatTTS's own loop, to compare with; and our loop, driven to the end of many requests."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Tokens = list[tuple[int, ...]]


@dataclass(frozen=True)
class Line:
    """One request."""

    text: str
    seed: int
    most: int = 150
    fewest: int = 0
    temperature: float = 0.3
    top_p: float = 0.7
    top_k: int = 20


def package(assets: Path) -> Any:
    """The package as it loads itself; an engine lets go of what its own loop does not need."""
    from synth_consumer.engines.chattts.assets import find_assets
    from synth_consumer.engines.chattts.loading import load_chat

    return load_chat(find_assets(str(assets)), "cpu", 1)


def theirs(chat: Any, line: Line, speaker: str) -> tuple[Tokens, Any]:
    """Tokens and hidden states of the package for a batch of one; nothing where it ends at once."""
    params = chat.InferCodeParams(
        spk_emb=speaker,
        manual_seed=line.seed,
        max_new_token=line.most,
        min_new_token=line.fewest,
        temperature=line.temperature,
        top_P=line.top_p,
        top_K=line.top_k or None,
        ensure_non_empty=False,
        show_tqdm=False,
    )
    results = list(chat._infer_code([line.text], False, chat.device, True, params))
    return ([tuple(row) for row in results[-1].ids[0].tolist()], results[-1].hiddens[0]) if results else ([], None)


def ours(chat: Any, decoder: Any, lines: Sequence[Line], speaker: str) -> list[Any]:
    """The runs of all lines, which join as lanes become free."""
    from synth_consumer.engines.chattts.prompts import speech_prompt
    from synth_consumer.engines.chattts.sampling import Sampling

    waiting, runs = deque(lines), []
    while waiting or not decoder.idle:
        while waiting and decoder.free:
            line = waiting.popleft()
            sampling = Sampling(line.seed, line.temperature, line.top_p, line.top_k, min_tokens=line.fewest)
            runs.append(decoder.join(speech_prompt(chat, line.text, speaker, "[speed_5]"), sampling, line.most))
        decoder.step()
    return runs


def refined_by_the_package(chat: Any, text: str, controls: str, seed: int) -> list[int]:
    """Tokens of the package's own text refinement; nothing where it ends at once."""
    params = chat.RefineTextParams(prompt=controls, manual_seed=seed, ensure_non_empty=False, show_tqdm=False)
    try:
        outcome = chat._refine_text([text], chat.device, params)
    except StopIteration:
        # The package calls next() on a generator that ended at once.
        return []
    tokens: list[int] = outcome.ids[0].tolist()
    return tokens
