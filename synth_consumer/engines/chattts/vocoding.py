"""Hidden states into sound, piece by piece, each computed once.

The package decodes a whole sentence at once: convolutions over time, then an inverse Fourier transform. Here each
convolution keeps the last frames that it has seen, so a piece costs its own length, and the sound is that of decoding
the whole but for rounding. A sample needs about 53 tokens behind it (1.1 s): they are the delay of the first piece.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from synth_consumer.engines.protocol import Pcm

SAMPLES_PER_TOKEN = 512
_FRAMES_PER_TOKEN = 2
_HOP = 256  # samples
# Frames on either side of a sample that reach into it: the transform's window is 1,024 samples wide.
_REACH = 4


Margin = tuple[Tensor | None, ...]


class _Frames:
    """One convolution over time, fed in pieces; (1, channels, frames) in and out."""

    def __init__(self, convolution: Any) -> None:
        kernel: int = convolution.kernel_size[0]
        dilation: int = convolution.dilation[0]
        self._margin = dilation * (kernel - 1) // 2
        self._convolution = convolution
        self._seen: Tensor | None = None

    @property
    def margin(self) -> Margin:
        """What is kept between pieces."""
        return (self._seen,)

    @margin.setter
    def margin(self, margin: Margin) -> None:
        (self._seen,) = margin

    def feed(self, frames: Tensor, last: bool) -> Tensor:
        pad = (0 if self._seen is not None else self._margin, self._margin if last else 0)
        if self._seen is not None:
            frames = torch.cat([self._seen, frames], -1)
        frames = functional.pad(frames, pad)
        if frames.shape[-1] <= 2 * self._margin:
            self._seen = frames
            return frames.new_empty(1, self._convolution.out_channels, 0)
        self._seen = frames[..., frames.shape[-1] - 2 * self._margin :].clone()
        c = self._convolution
        return functional.conv1d(frames, c.weight, c.bias, dilation=c.dilation, groups=c.groups)


class _Residual:
    """A ConvNeXt block: what goes around it waits for what goes through it."""

    def __init__(self, block: Any, scale: Tensor | None) -> None:
        self._frames = _Frames(block.dwconv)
        self._block = block
        self._scale = scale
        self._around: Tensor | None = None

    @property
    def margin(self) -> Margin:
        """What is kept between pieces."""
        return (*self._frames.margin, self._around)

    @margin.setter
    def margin(self, margin: Margin) -> None:
        seen, self._around = margin
        self._frames.margin = (seen,)

    def feed(self, frames: Tensor, last: bool) -> Tensor:
        through = self._frames.feed(frames, last)
        around = frames if self._around is None else torch.cat([self._around, frames], -1)
        ready = through.shape[-1]
        self._around = around[..., ready:].clone()
        if not ready:
            return around[..., :0]
        block = self._block
        y = block.pwconv2(block.act(block.pwconv1(block.norm(through.transpose(1, 2)))))
        if self._scale is not None:
            y = y * self._scale
        return y.transpose(1, 2) + around[..., :ready]


class _Pointwise:
    """Anything that treats every frame alone."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self.margin: Margin = ()

    def feed(self, frames: Tensor, last: bool) -> Tensor:
        del last
        return self._function(frames) if frames.shape[-1] else frames


class Vocoder:
    """The sound of one sentence."""

    def __init__(self, chat: Any) -> None:
        self._head = chat.vocos.head
        self._steps: list[_Frames | _Residual | _Pointwise] = list(_steps(chat.decoder, chat.vocos.backbone))
        self._spectrum: Tensor | None = None
        self._fed = 0  # frames that came out of the backbone
        self._sent = 0  # samples

    def feed(self, hiddens: Tensor, last: bool) -> Pcm:
        """The samples that can be told now.

        Args:
            hiddens: of the next tokens, (tokens, hidden); at least one token in all before the last call.
            last: no token follows; what is left comes out.

        Returns:
            Samples right behind those of the call before, not clipped; maybe none. Where memory runs out, the same
            call can be made again.
        """
        before = (self._spectrum, self._fed, self._sent)
        margins = [step.margin for step in self._steps]
        try:
            with torch.inference_mode():
                frames = _interleaved(hiddens.float())
                for step in self._steps:
                    frames = step.feed(frames, last)
                return self._samples(frames, last)
        except BaseException:
            # Tensors are replaced, never written to, so what was there before is whole.
            self._spectrum, self._fed, self._sent = before
            for step, margin in zip(self._steps, margins, strict=True):
                step.margin = margin
            raise

    def _samples(self, frames: Tensor, last: bool) -> Pcm:
        # The transform is over some earlier frames too, whose samples were incomplete or are its margin.
        spectrum = frames if self._spectrum is None else torch.cat([self._spectrum, frames], -1)
        self._fed += frames.shape[-1]
        first = self._fed - spectrum.shape[-1]
        # Centred: frame n stands at sample n * hop, and a sound ends at its last frame.
        complete = (self._fed - 1) * _HOP if last else max(0, self._fed - _REACH) * _HOP
        if complete <= self._sent:
            self._spectrum = spectrum
            return np.zeros(0, np.float32)
        wave = self._head(spectrum.transpose(1, 2))[0]
        piece = wave[self._sent - first * _HOP : complete - first * _HOP]
        self._sent = complete
        keep = max(0, complete // _HOP - _REACH)
        self._spectrum = spectrum[..., keep - first :].clone()
        pcm: Pcm = piece.cpu().numpy().astype(np.float32)
        return pcm


class EarlySound:
    """The first tokens' sound before their look-ahead is there, joined to the exact sound that follows.

    Its last part differs a little from decoding the whole; how much, only the weights can tell.
    """

    tokens = 14  # 8 that are heard, 6 of look-ahead
    _HEARD = 8 * SAMPLES_PER_TOKEN
    _FADE = 256  # samples, at the end of what is heard

    def __init__(self, chat: Any) -> None:
        self._vocoder = Vocoder(chat)
        self._end: Pcm | None = None  # what the exact sound is faded into
        self._seen = 0  # samples of the exact sound

    def first(self, hiddens: Tensor) -> list[Pcm]:
        """The sound of the first tokens, once."""
        if self._end is not None:
            return []
        pcm = self._vocoder.feed(hiddens[: self.tokens], last=True)
        self._end = pcm[self._HEARD - self._FADE : self._HEARD]
        return [pcm[: self._HEARD - self._FADE]]

    def rest(self, pcm: Pcm) -> Pcm:
        """The exact sound without what was told already."""
        if self._end is None:
            return pcm
        begin, start = self._HEARD - self._FADE, self._seen
        self._seen += len(pcm)
        pcm = pcm[max(0, begin - start) :]
        at = max(begin, start) - begin  # where in the fade the piece begins
        count = max(0, min(self._FADE - at, len(pcm)))
        if count:
            gain = (np.arange(at, at + count, dtype=np.float32) + 1) / (self._FADE + 1)
            faded = self._end[at : at + count] * (1 - gain) + pcm[:count] * gain
            pcm = np.concatenate([faded, pcm[count:]])
        return pcm


def _interleaved(hiddens: Tensor) -> Tensor:
    """Two frames of half the width for each token: (tokens, hidden) to (1, hidden / 2, 2 * tokens)."""
    tokens, hidden = hiddens.shape
    halves = hiddens.t().reshape(_FRAMES_PER_TOKEN, hidden // _FRAMES_PER_TOKEN, tokens)
    return halves.permute(1, 2, 0).flatten(1)[None]


def _steps(decoder: Any, backbone: Any) -> Iterator[_Frames | _Residual | _Pointwise]:
    inner = decoder.decoder
    yield _Frames(inner.conv_in[0])
    yield _Pointwise(inner.conv_in[1])
    yield _Frames(inner.conv_in[2])
    for block in inner.decoder_block:
        yield _Residual(block, block.weight)
    yield _Frames(inner.conv_out)
    yield _Frames(decoder.out_conv)
    yield _Pointwise(lambda mel: mel * decoder.coef)
    yield _Frames(backbone.embed)
    yield _Pointwise(lambda y: backbone.norm(y.transpose(1, 2)).transpose(1, 2))
    for block in backbone.convnext:
        yield _Residual(block, block.gamma)
    yield _Pointwise(lambda y: backbone.final_layer_norm(y.transpose(1, 2)).transpose(1, 2))
