"""What are the PyTorch networks made of? Layers that both systems share, with the names
of released checkpoints.

Frames are (N, 3, S, S) float32 RGB in [0, 1]. Where PyTorch offers a choice, the faster one is
used: ReLU in place, and a strided blur.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """k x k conv, batch norm, ReLU. A down block pools afterwards; an up block upsamples first."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, kind: str = "same") -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)
        self.norm = nn.BatchNorm2d(outputs)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H', W'): half, twice or the same side."""
        if self.kind == "up":
            x = F.interpolate(x, scale_factor=2)
        x = F.relu(self.norm(self.conv(x)), inplace=True)
        return F.avg_pool2d(x, 2) if self.kind == "down" else x


class Residual(nn.Module):
    """Twice (batch norm, ReLU, 3x3 conv), plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = (nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W), shape kept."""
        y = self.conv1(F.relu(self.norm1(x), inplace=True))
        return x + self.conv2(F.relu(self.norm2(y), inplace=True))


class EncoderDecoder(nn.Module):
    """n down blocks, then n up blocks.

    With `skips`, the encoder's outputs are concatenated after the decoder's.
    """

    def __init__(self, inputs: int, width: int, blocks: int, max_width: int, skips: bool = False) -> None:
        super().__init__()
        widths = [min(max_width, width * 2**i) for i in range(blocks + 1)]
        downs = [inputs, *widths[1:]]
        down_blocks = nn.ModuleList(Block(downs[i], downs[i + 1], kind="down") for i in range(blocks))
        self.encoder, self.skips = nn.ModuleDict({"down_blocks": down_blocks}), skips
        ups, before = [], downs[-1]
        for i in reversed(range(blocks)):
            ups.append(Block(before, widths[i], kind="up"))
            before = widths[i] + (downs[i] if skips else 0)
        self.decoder = nn.ModuleDict({"up_blocks": nn.ModuleList(ups)})
        self.outputs = before

    @staticmethod
    def _blocks(half: nn.ModuleDict) -> Iterator[nn.Module]:
        (blocks,) = half.values()
        return blocks.children()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        encoded = [x]
        for block in self._blocks(self.encoder):
            encoded.append(block(encoded[-1]))
        y = encoded.pop()
        for block in self._blocks(self.decoder):
            y = block(y)
            if self.skips:
                y = torch.cat([y, encoded.pop()], 1)
        return y


class Blur(nn.Module):
    """The anti-aliased downscale by `step`: a depthwise Gaussian, computed only for
    the pixels that are kept.
    """

    weight: Tensor

    def __init__(self, step: int) -> None:
        super().__init__()
        sigma = (step - 1) / 2
        self.step, self.reach = step, round(4 * sigma)
        offsets = torch.arange(-self.reach, self.reach + 1, dtype=torch.float64, device="cpu")
        taps = torch.exp(-(offsets**2) / (2 * sigma**2)) if step > 1 else torch.ones(1)
        kernel = torch.outer(taps, taps) / taps.sum() ** 2
        self.register_buffer("weight", kernel.float().expand(3, 1, -1, -1).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, 3, S / step, S / step)."""
        return F.conv2d(x, self.weight, stride=self.step, padding=self.reach, groups=3) if self.step > 1 else x


def resize(x: Tensor, side: int) -> Tensor:
    """D and U: bilinear without anti-aliasing."""
    return x if x.shape[-1] == side else F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
