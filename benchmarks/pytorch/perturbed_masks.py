"""How is Perturbed Masks written in PyTorch? m, r, l and h, their losses and where gradients stop.

Masks are (N, 1, L, L). Unlike the released code, the networks support the temperatures,
`mask.border` and `mask.area_weight` of the small recipe.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.pytorch.blocks import Block, Blur, EncoderDecoder, Residual, resize
from benchmarks.pytorch.perceptual import Perceptual

EDGE = 3


class MaskGenerator(nn.Module):
    """m: a frame to its mask."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__()
        settings, step = config.mask, config.frame_size // config.mask.size
        self.predictor = EncoderDecoder(3, settings.width, settings.num_blocks, settings.max_width)
        self.border = EDGE if settings.border == "zero" else 0
        self.ref = nn.Conv2d(self.predictor.outputs, 1, 7, padding=EDGE - self.border)
        self.down = Blur(step) if step > 1 else nn.Identity()
        self.temperature = settings.temperature

    def forward(self, frame: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, 1, L, L)."""
        mask = torch.sigmoid(self.ref(self.predictor(self.down(frame))) / self.temperature)
        return F.pad(mask, [self.border] * 4) if self.border else mask


class Generator(nn.Module):
    """r, l and h, which are one module in the released code."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__()
        ups = (config.frame_size // config.mask.size).bit_length() - 1
        width = config.coarse.width
        self.first = Block(5, width, 7)
        self.bottleneck = nn.Module()
        self.residuals = [f"r{i}" for i in range(config.coarse.residual_blocks)]
        for name in self.residuals:
            setattr(self.bottleneck, name, Residual(width))
        self.up_blocks = nn.ModuleList(Block(width >> i, width >> (i + 1), kind="up") for i in range(ups))
        self.final = nn.Conv2d(width >> ups, 3, 7, padding=3)
        fine, refine = config.fine, config.refine
        self.hourglass = EncoderDecoder(8, fine.width, fine.num_blocks, fine.max_width, skips=True)
        self.mask_fix_net = EncoderDecoder(5, refine.width, refine.num_blocks, refine.max_width)
        self.ref = nn.Conv2d(self.mask_fix_net.outputs, 1, 7, padding=3)
        self.final_hourglass = nn.Conv2d(self.hourglass.outputs, 3, 7, padding=3)
        self.temperature = refine.temperature

    def refine(self, small: Tensor, source_mask: Tensor, perturbed: Tensor) -> Tensor:
        """r: D(s), m_s and the perturbed mask to the refined mask."""
        x = self.mask_fix_net(torch.cat([small, source_mask, perturbed], 1))
        return torch.sigmoid(self.ref(x) / self.temperature)

    def coarse(self, small: Tensor, source_mask: Tensor, driving_mask: Tensor) -> Tensor:
        """l: D(s), m_s and m_d to the coarse frame (N, 3, S, S)."""
        x = self.first(torch.cat([small, source_mask, driving_mask], 1))
        for name in self.residuals:
            x = getattr(self.bottleneck, name)(x)
        for block in self.up_blocks:
            x = block(x)
        return torch.sigmoid(self.final(x))

    def fine(self, source: Tensor, source_mask: Tensor, coarse: Tensor, driving_mask: Tensor) -> Tensor:
        """h: s, U(m_s), c, U(m_d) to the fine frame (N, 3, S, S)."""
        return torch.sigmoid(
            self.final_hourglass(self.hourglass(torch.cat([source, source_mask, coarse, driving_mask], 1)))
        )


class Begun(NamedTuple):
    """Computed once per video."""

    source: Tensor
    mask: Tensor


class Model(nn.Module):
    """All networks with their own weights, with the names of a released checkpoint."""

    MODULES = ("generator", "mask_generator")
    NETWORKS = ("mask", "refine", "coarse", "fine")
    SOURCE_EACH_FRAME = True
    """Whether the released code recomputes the source's part, its mask, for each frame."""
    ENCODED = "down_blocks."
    """Prefixes of a file's tensors that are not used: the module of r, l and h has an
    encoder that is never run.
    """

    def __init__(self, config: ConfigDict) -> None:
        super().__init__()
        if config.mask.normalise_logits or config.precision != "float32":
            raise ValueError("the PyTorch implementation has neither mask.normalise_logits nor bfloat16")
        self.config = config
        self.generator, self.mask_generator = Generator(config), MaskGenerator(config)

    def network(self, name: str) -> Iterator[nn.Parameter]:
        """The parameters of "mask", "refine", "coarse" or "fine"."""
        of = {"mask_fix_net": "refine", "ref": "refine", "hourglass": "fine", "final_hourglass": "fine"}
        for path, parameter in self.named_parameters():
            module, part = path.split(".")[:2]
            if name == ("mask" if module == "mask_generator" else of.get(part, "coarse")):
                yield parameter

    def losses(
        self, perceptual: Perceptual, source: Tensor, target: Tensor, driving: Tensor, perturbed: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The weighted losses of one batch; `detach` marks where the paper's gradients stop.

        Without `perturbed`, r gets a simple stand-in for P_train: the mask, small
        values cut off, times 0.9.
        """
        config, size = self.config, self.config.frame_size
        source_mask, driving_mask = self.mask_generator(source), self.mask_generator(driving)
        small = resize(source, self.config.mask.size)
        coarse = self.generator.coarse(small, source_mask, driving_mask)
        wide = [resize(mask.detach(), size) for mask in (source_mask, driving_mask)]
        fine = self.generator.fine(source, wide[0], coarse.detach(), wide[1])
        known = driving_mask.detach()
        if perturbed is None:
            perturbed = 0.9 * known * (known >= 60 / 255)
        refined = self.generator.refine(small, source_mask.detach(), perturbed)
        losses = {"mask": config.loss.mask * F.l1_loss(refined, known)}
        for name, value in perceptual({"coarse": coarse, "fine": fine}, target).items():
            losses[name] = config.loss.perceptual * value
        if config.mask.area_weight:
            means = torch.cat([source_mask.mean((1, 2, 3)), driving_mask.mean((1, 2, 3))])
            losses["area"] = config.mask.area_weight * F.relu(means - config.mask.area_margin).mean()
        return losses

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam over all networks; m has its own learning rate."""
        optim = self.config.optim
        rates = {"mask": optim.learning_rate * optim.mask_lr_multiplier}
        groups = [
            {"params": list(self.network(name)), "lr": rates.get(name, optim.learning_rate)} for name in self.NETWORKS
        ]
        return torch.optim.Adam(groups, betas=(optim.beta1, optim.beta2), fused=True)

    def given(self, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
        """The argument of `losses` that replaces random values: `perturbed`, the
        driving masks after P_train.
        """
        return {"perturbed": numbers["perturbed"]}

    def begin(self, source: Tensor, first: Tensor) -> Begun:
        """Encodes the source (1, 3, S, S) to its mask; the first driving frame is not used."""
        return Begun(source, self.mask_generator(source))

    def frames(self, source_state: Begun, driving: Tensor) -> Tensor:
        """Fine frames for a batch of driving frames (N, 3, S, S)."""
        config = self.config
        source, source_mask = (x.expand(len(driving), -1, -1, -1) for x in source_state)
        perturbed = p_test(self.mask_generator(driving), config.perturb.test_threshold, config.perturb.test_scale)
        small = resize(source, config.mask.size)
        refined = self.generator.refine(small, source_mask, perturbed)
        coarse = self.generator.coarse(small, source_mask, refined)
        wide = [resize(mask, config.frame_size) for mask in (source_mask, refined)]
        return self.generator.fine(source, wide[0], coarse, wide[1])


def p_test(mask: Tensor, threshold: str, scale: float) -> Tensor:
    """P_test on integer grey levels: values below the threshold become 0, then the mask is
    scaled about its centre.
    """
    levels = torch.floor(mask * 255)
    if threshold == "median":
        ordered = levels.flatten(1).sort(1).values
        half = ordered.shape[1] // 2
        rho = ordered[:, half - 1 : half + 1].mean(1).view(-1, 1, 1, 1)
    else:
        rho = torch.tensor(float(threshold), device=mask.device)
    levels = torch.where(levels < rho, 0.0, levels)
    if scale != 1:
        side = levels.shape[-1]
        pixel = torch.arange(side, dtype=torch.float32, device=mask.device)
        wanted = torch.round(((side - 1) / 2 + (pixel - (side - 1) / 2) / scale) * 32) / 32
        matrix = (1 - (wanted[:, None] - pixel[None]).abs()).clamp(min=0)
        levels = torch.round(matrix @ levels @ matrix.T)
    return levels / 255
