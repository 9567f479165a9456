"""How far is a picture from the target in VGG-19's features at several sizes?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.pytorch.blocks import Blur

VGG_CONVS = (2, 2, 4, 4, 4)


class Vgg(nn.Module):
    """VGG-19 up to the last used layer, from the arrays of
    `maskanim_jax.weights`; it is not trained.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Mapping[str, np.ndarray], taps: Sequence[str]) -> None:
        super().__init__()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.from_numpy(np.array(weights[name])).view(1, 3, 1, 1))
        names = [f"{block}_{i}" for block, count in enumerate(VGG_CONVS, 1) for i in range(1, count + 1)]
        self.taps = set(taps)
        self.convs = names[: 1 + max(names.index(tap.removeprefix("relu")) for tap in taps)]
        for name in self.convs:
            kernel = np.ascontiguousarray(weights[f"conv{name}/kernel"].transpose(3, 2, 0, 1))
            self.register_buffer(f"kernel{name}", torch.from_numpy(kernel))
            self.register_buffer(f"bias{name}", torch.from_numpy(np.array(weights[f"conv{name}/bias"])))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to the activations of the layers."""
        x, found = (x - self.mean) / self.std, []
        for name in self.convs:
            if name.endswith("_1") and name != "1_1":
                x = F.max_pool2d(x, 2)
            x = F.relu(
                F.conv2d(x, getattr(self, f"kernel{name}"), getattr(self, f"bias{name}"), padding=1), inplace=True
            )
            if f"relu{name}" in self.taps:
                found.append(x)
        return found


class Perceptual(nn.Module):
    """The perceptual pyramid of several pictures against one target.

    Its features are computed once per scale, without gradient.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], config: ConfigDict) -> None:
        super().__init__()
        self.vgg, side = Vgg(weights, config.loss.vgg_layers), config.frame_size
        self.scales = {
            "fine": tuple(config.loss.pyramid_sizes),
            "coarse": tuple(config.loss.get("coarse_pyramid_sizes", ())),
        }
        self.all = sorted({scale for scales in self.scales.values() for scale in scales}, reverse=True)
        self.blurs = nn.ModuleDict({str(scale): Blur(side // scale) for scale in self.all})

    def forward(self, pictures: Mapping[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """{"fine" and perhaps "coarse"} (N, 3, S, S) to their unweighted losses."""
        losses = {name: target.new_zeros(()) for name in pictures}
        for scale in self.all:
            blur = self.blurs[str(scale)]
            with torch.no_grad():
                wanted = self.vgg(blur(target))
            for name, picture in pictures.items():
                if scale in self.scales[name]:
                    seen = self.vgg(blur(picture))
                    losses[name] = losses[name] + sum(F.l1_loss(s, w) for s, w in zip(seen, wanted, strict=True))
        return losses
