"""What would the same networks, losses and gradient rules be in PyTorch?

Written for the comparison in `benchmarks/against_pytorch.py`, so that our numbers stand beside the framework that the released code uses.
Tensors have the names of a released checkpoint, so that a file of the project's exporter loads. Frames are (N, 3, S, S) float32 RGB in
[0, 1], masks (N, 1, L, L). Where PyTorch has a choice, the faster one is taken: ReLU in place, fused Adam, target features once, the blur
with its stride inside. Beyond the released code the networks know the temperatures, `mask.border` and `mask.area_weight` of the small recipe.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

EDGE = 3
VGG_CONVS = (2, 2, 4, 4, 4)


class Block(nn.Module):
    """k x k conv, batch norm, ReLU; a down block pools afterwards, an up block upsamples before."""

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
    """Twice batch norm, ReLU, 3x3 conv; plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = (nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W), shape kept."""
        y = self.conv1(F.relu(self.norm1(x), inplace=True))
        return x + self.conv2(F.relu(self.norm2(y), inplace=True))


class EncoderDecoder(nn.Module):
    """n down blocks, n up blocks; with `skips` the encoder's outputs are concatenated behind the decoder's."""

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
    """The anti-aliased downscale by `step`: a depthwise Gaussian that is only computed where a pixel is kept."""

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
    """r, l and h, which the released code keeps in one module."""

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


class Vgg(nn.Module):
    """VGG-19 up to the last tap, from the arrays of `maskanim_jax.weights`; nothing in it is trained."""

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
        """(N, 3, H, W) to the activations at the taps."""
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
    """The perceptual pyramid of several pictures against one target, whose features are computed once a scale and stopped."""

    def __init__(self, weights: Mapping[str, np.ndarray], config: ConfigDict) -> None:
        super().__init__()
        self.vgg, side = Vgg(weights, config.loss.vgg_layers), config.frame_size
        self.scales = {"coarse": tuple(config.loss.coarse_pyramid_sizes), "fine": tuple(config.loss.pyramid_sizes)}
        self.all = sorted({*self.scales["coarse"], *self.scales["fine"]}, reverse=True)
        self.blurs = nn.ModuleDict({str(scale): Blur(side // scale) for scale in self.all})

    def forward(self, pictures: Mapping[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """{"coarse", "fine"} (N, 3, S, S) to their losses, without weight."""
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


class Model(nn.Module):
    """Everything with weights of its own, by the names of a released checkpoint."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__()
        if config.mask.normalise_logits or config.precision != "float32":
            raise ValueError("the PyTorch writing has neither mask.normalise_logits nor bfloat16")
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
        """The weighted losses of one batch; `detach` stands where the paper's gradients stop.

        Without `perturbed` r gets a plain stand-in for P_train: the mask, small values cut off, times 0.9.
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
        """Adam over all networks, m at its own rate."""
        optim = self.config.optim
        rates = {"mask": optim.learning_rate * optim.mask_lr_multiplier}
        groups = [
            {"params": list(self.network(name)), "lr": rates.get(name, optim.learning_rate)}
            for name in ("mask", "refine", "coarse", "fine")
        ]
        return torch.optim.Adam(groups, betas=(optim.beta1, optim.beta2), fused=True)

    def animate(self, source: Tensor, source_mask: Tensor, driving: Tensor) -> Tensor:
        """Fine frames for a batch of driving frames; `source` and its mask have as many."""
        config = self.config
        perturbed = p_test(self.mask_generator(driving), config.perturb.test_threshold, config.perturb.test_scale)
        small = resize(source, config.mask.size)
        refined = self.generator.refine(small, source_mask, perturbed)
        coarse = self.generator.coarse(small, source_mask, refined)
        wide = [resize(mask, config.frame_size) for mask in (source_mask, refined)]
        return self.generator.fine(source, wide[0], coarse, wide[1])


def resize(x: Tensor, side: int) -> Tensor:
    """D and U: plain bilinear."""
    return x if x.shape[-1] == side else F.interpolate(x, (side, side), mode="bilinear", align_corners=False)


def p_test(mask: Tensor, threshold: str, scale: float) -> Tensor:
    """P_test on whole grey levels: values below the threshold become 0, then the mask is scaled about its centre."""
    levels = torch.floor(mask * 255)
    if threshold == "median":
        ordered = levels.flatten(1).sort(1).values
        half = ordered.shape[1] // 2
        rho = ordered[:, half - 1 : half + 1].mean(1).view(-1, 1, 1, 1)
    else:
        rho = torch.tensor(float(threshold))
    levels = torch.where(levels < rho, 0.0, levels)
    if scale != 1:
        pixel, side = torch.arange(levels.shape[-1], dtype=torch.float32), levels.shape[-1]
        wanted = torch.round(((side - 1) / 2 + (pixel - (side - 1) / 2) / scale) * 32) / 32
        matrix = (1 - (wanted[:, None] - pixel[None]).abs()).clamp(min=0)
        levels = torch.round(matrix @ levels @ matrix.T)
    return levels / 255


def load(path: Path, config: ConfigDict) -> Model:
    """A model with the weights of a file in the released format; the encoder that nobody runs is left in the file."""
    tree = torch.load(path, weights_only=True)
    with torch.device("meta"):  # the file's tensors become the parameters: nothing is held twice
        model = Model(config)
    for name in ("generator", "mask_generator"):
        # r, l and h share a module there with an encoder that is never run.
        state = {key: value for key, value in tree[name].items() if not key.startswith("down_blocks.")}
        getattr(model, name).load_state_dict(state, assign=True)
    return model


class TorchSide:
    """What a worker of the comparison does in PyTorch; times are wall-clock seconds from uint8 frames on."""

    def __init__(self, config: ConfigDict, weights: Path, vgg: Mapping[str, np.ndarray], task: str) -> None:
        self.model = load(weights, config)
        self.perceptual = Perceptual(vgg, config) if task == "step" else None
        self.layout(False)

    def layout(self, last: bool) -> None:
        """Channels last or not: weights, frames and, anew, Adam's moments."""
        self.format = torch.channels_last if last else torch.contiguous_format
        modules: list[Any] = [self.model, self.perceptual] if self.perceptual else [self.model]
        for module in modules:
            module.to(memory_format=self.format)
        self.optimizer = self.model.optimizer()

    def frames(self, frames: np.ndarray) -> Tensor:
        """(N, S, S, 3) uint8 to the networks' frames."""
        wide = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 255
        return wide.contiguous(memory_format=self.format)

    def compare(self, source: np.ndarray, driving: np.ndarray, perturbed: np.ndarray) -> dict[str, dict[str, float]]:
        """Losses and gradient norms of one batch, nothing updated but running statistics; `perturbed` (N, L, L, 1) is r's input."""
        s, d = self.frames(source), self.frames(driving)
        assert self.perceptual is not None
        losses = self.model.train().losses(self.perceptual, s, d, d, torch.from_numpy(perturbed).permute(0, 3, 1, 2))
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        norms = {}
        for name in ("mask", "refine", "coarse", "fine"):
            squares = [float(p.grad.double().square().sum()) for p in self.model.network(name) if p.grad is not None]
            norms[name] = sum(squares) ** 0.5
        return {"losses": {name: value.item() for name, value in losses.items()}, "norms": norms}

    def step(self, source: np.ndarray, driving: np.ndarray, count: int) -> float:
        """Seconds for one of `count` training steps."""
        assert self.perceptual is not None
        self.model.train()
        began = time.perf_counter()
        for _ in range(count):
            s, d = self.frames(source), self.frames(driving)
            self.optimizer.zero_grad(set_to_none=True)
            losses = self.model.losses(self.perceptual, s, d, d)
            torch.stack(list(losses.values())).sum().backward()
            self.optimizer.step()
            if not all(np.isfinite(value.item()) for value in losses.values()):
                raise FloatingPointError("a loss is not finite")
        return (time.perf_counter() - began) / count

    @torch.inference_mode()
    def animate(self, source: np.ndarray, video: np.ndarray, way: str) -> tuple[float, np.ndarray]:
        """(seconds for a frame, fine frames): "released" frame by frame, or "batched" in batches of 8."""
        self.model.eval()
        began, found, mask = time.perf_counter(), [], None
        size = 1 if way == "released" else 8
        for first in range(0, len(video), size):
            driving = self.frames(video[first : first + size])
            if mask is None or way == "released":
                s = self.frames(source[None])
                mask = self.model.mask_generator(s)
            many, masks = (x.expand(len(driving), -1, -1, -1) for x in (s, mask))
            found.append(self.model.animate(many, masks, driving).permute(0, 2, 3, 1).numpy())
        return (time.perf_counter() - began) / len(video), np.concatenate(found)
