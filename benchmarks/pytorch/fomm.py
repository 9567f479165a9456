"""How is FOMM written in PyTorch? Keypoint detector, dense motion, generator, losses of
a step, relative motion.

Keypoints are (N, K, 2), x first, in [-1, 1]; Jacobians are (N, K, 2, 2). The adversarial
variant is not implemented.
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

SMALLEST = 1e-6
"""Determinants are kept this far from zero, as in the JAX code."""


class Keypoints(NamedTuple):
    """Positions and local deformations; the latter are None in the zeroth-order model."""

    value: Tensor
    jacobian: Tensor | None


class Begun(NamedTuple):
    """Computed once per video: the source, its keypoints, and those of the first driving frame."""

    source: Tensor
    kp_source: Keypoints
    first: Keypoints


def grid(height: int, width: int, device: torch.device) -> Tensor:
    """(height, width, 2): x first, from -1 to 1, with both ends at pixel centres."""
    x, y = (torch.linspace(-1, 1, side, device=device) for side in (width, height))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def inverse(m: Tensor) -> Tensor:
    """The inverse of (..., 2, 2), in closed form."""
    a, b, c, d = m[..., 0, 0], m[..., 0, 1], m[..., 1, 0], m[..., 1, 1]
    determinant = a * d - b * c
    sign = torch.where(determinant < 0, -SMALLEST, SMALLEST)
    determinant = torch.where(determinant.abs() < SMALLEST, sign, determinant)
    adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    return adjugate / determinant[..., None, None]


def gaussians(points: Tensor, places: Tensor, variance: float) -> Tensor:
    """Gaussians at (N, K, 2) points on an (H, W, 2) grid: (N, K, H, W)."""
    return torch.exp(-0.5 * (places - points[:, :, None, None]).square().sum(-1) / variance)


class KeypointDetector(nn.Module):
    """A frame to its keypoints."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__()
        settings = config.keypoints
        self.predictor = EncoderDecoder(3, settings.width, settings.num_blocks, settings.max_width, skips=True)
        self.kp = nn.Conv2d(self.predictor.outputs, settings.num_keypoints, 7)
        self.maps = 1 if settings.single_jacobian else settings.num_keypoints
        self.jacobian = nn.Conv2d(self.predictor.outputs, 4 * self.maps, 7) if settings.jacobian else None
        self.down, self.temperature = Blur(round(1 / settings.scale)), settings.temperature

    def forward(self, frame: Tensor) -> Keypoints:
        """(N, 3, S, S)."""
        x = self.predictor(self.down(frame))
        logits = self.kp(x)
        n, count, height, width = logits.shape
        heatmaps = (logits.flatten(2) / self.temperature).softmax(-1)  # (N, K, H W)
        value = heatmaps @ grid(height, width, frame.device).view(-1, 2)
        if self.jacobian is None:
            return Keypoints(value, None)
        entries = self.jacobian(x).view(n, self.maps, 4, -1)
        return Keypoints(value, (heatmaps[:, :, None] * entries).sum(-1).view(n, count, 2, 2))


class DenseMotion(nn.Module):
    """Combines local motions to one field, and predicts the occlusion map."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__()
        settings, count = config.motion, config.keypoints.num_keypoints
        self.hourglass = EncoderDecoder(
            4 * (count + 1), settings.width, settings.num_blocks, settings.max_width, skips=True
        )
        self.mask = nn.Conv2d(self.hourglass.outputs, count + 1, 7, padding=3)
        self.occlusion = nn.Conv2d(self.hourglass.outputs, 1, 7, padding=3) if settings.occlusion else None
        self.down, self.variance, self.corners = (
            Blur(round(1 / settings.scale)),
            settings.variance,
            config.align_corners,
        )

    def forward(self, source: Tensor, kp_source: Keypoints, wanted: Keypoints) -> tuple[Tensor, Tensor | None]:
        """The deformation (N, L, L, 2) and the occlusion (N, 1, L, L)."""
        n, k = wanted.value.shape[:2]
        small = self.down(source)
        height, width = small.shape[2:]
        places = grid(height, width, source.device)
        moved = places - wanted.value[:, :, None, None]
        if wanted.jacobian is not None and kp_source.jacobian is not None:
            change = kp_source.jacobian @ inverse(wanted.jacobian)
            moved = (change[:, :, None, None] @ moved[..., None]).squeeze(-1)
        moved = moved + kp_source.value[:, :, None, None]
        motions = torch.cat([places.expand(n, 1, -1, -1, -1), moved], 1)  # (N, K + 1, L, L, 2)
        stacked = motions.view(n, (k + 1) * height, width, 2)
        warped = F.grid_sample(small.expand(n, -1, -1, -1), stacked, align_corners=self.corners)
        warped = warped.view(n, 3, k + 1, height, width).transpose(1, 2)
        heat = gaussians(wanted.value, places, self.variance) - gaussians(kp_source.value, places, self.variance)
        heat = F.pad(heat, (0, 0, 0, 0, 1, 0))  # zero for the background
        x = self.hourglass(torch.cat([heat[:, :, None], warped], 2).flatten(1, 2))
        masks = self.mask(x).softmax(1)
        deformation = (masks[..., None] * motions).sum(1)
        return deformation, None if self.occlusion is None else torch.sigmoid(self.occlusion(x))


class Generator(nn.Module):
    """Renders the source in another pose."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__()
        settings = config.generator
        widths = [min(settings.max_width, settings.width * 2**i) for i in range(settings.down_blocks + 1)]
        self.first = Block(3, widths[0], 7)
        self.down_blocks = nn.ModuleList(
            Block(widths[i], widths[i + 1], kind="down") for i in range(settings.down_blocks)
        )
        self.bottleneck = nn.Sequential()
        for i in range(settings.residual_blocks):
            self.bottleneck.add_module(f"r{i}", Residual(widths[-1]))
        self.up_blocks = nn.ModuleList(
            Block(widths[i + 1], widths[i], kind="up") for i in reversed(range(settings.down_blocks))
        )
        self.final = nn.Conv2d(widths[0], 3, 7, padding=3)
        self.dense_motion_network, self.corners = DenseMotion(config), config.align_corners

    def forward(self, source: Tensor, kp_source: Keypoints, wanted: Keypoints) -> Tensor:
        """Source (N or 1, 3, S, S) and keypoints to (N, 3, S, S); a single source for
        many poses is encoded once.
        """
        x = self.first(source)
        for block in self.down_blocks:
            x = block(x)
        deformation, occlusion = self.dense_motion_network(source, kp_source, wanted)
        side = x.shape[-1]
        field = resize(deformation.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)
        x = F.grid_sample(x.expand(len(field), -1, -1, -1), field, align_corners=self.corners)
        if occlusion is not None:
            x = x * resize(occlusion, side)
        x = self.bottleneck(x)
        for block in self.up_blocks:
            x = block(x)
        return torch.sigmoid(self.final(x))


class Warp:
    """A known deformation: an affine map `theta` (N, 2, 3) and a spline with weights `params`
    (N, 1, P^2) on a grid over the frame.
    """

    def __init__(self, theta: Tensor, params: Tensor) -> None:
        points = round(params.shape[-1] ** 0.5)
        self.theta, self.params = theta, params
        self.centres = grid(points, points, theta.device).view(-1, 2)

    @classmethod
    def drawn(cls, n: int, config: ConfigDict, device: torch.device) -> Warp:
        """A random warp for each of n frames."""
        settings = config.equivariance
        theta = torch.eye(2, 3, device=device) + settings.affine_sigma * torch.randn(n, 2, 3, device=device)
        return cls(theta, settings.tps_sigma * torch.randn(n, 1, settings.tps_points**2, device=device))

    def _offsets(self, points: Tensor) -> tuple[Tensor, Tensor]:
        offsets = points[:, :, None] - self.centres  # (N, M, P^2, 2)
        return offsets, offsets.abs().sum(-1)

    def __call__(self, points: Tensor) -> Tensor:
        """Maps points (N, M, 2) to their positions in the unwarped frame, (N, M, 2)."""
        radius = self._offsets(points)[1]
        bend = (radius.square() * (radius + 1e-6).log() * self.params).sum(-1, keepdim=True)
        return points @ self.theta[:, :, :2].mT + self.theta[:, None, :, 2] + bend

    def jacobian(self, points: Tensor) -> Tensor:
        """The derivative of the warp at points (N, M, 2): (N, M, 2, 2)."""
        offsets, radius = self._offsets(points)
        slope = self.params * (2 * radius * (radius + 1e-6).log() + radius.square() / (radius + 1e-6))
        bend = (slope[..., None] * offsets.sign()).sum(2)  # the same for both coordinates
        return self.theta[:, None, :, :2] + bend[:, :, None]

    def frames(self, frames: Tensor, corners: bool) -> Tensor:
        """Frames (N, 3, S, S), sampled at the warped positions, mirrored at the borders."""
        n, _, height, width = frames.shape
        places = grid(height, width, frames.device).view(1, -1, 2).expand(n, -1, -1)
        field = self(places).view(n, height, width, 2)
        return F.grid_sample(frames, field, padding_mode="reflection", align_corners=corners)


class Model(nn.Module):
    """All networks with their own weights, with the names of a released checkpoint."""

    MODULES = ("generator", "kp_detector")
    NETWORKS = ("keypoints", "generator")
    SOURCE_EACH_FRAME = False
    ENCODED = ""
    """Prefixes of a file's tensors that are not used."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__()
        if config.discriminator.enabled or config.precision != "float32":
            raise ValueError("the PyTorch implementation has neither FOMM's discriminator nor bfloat16")
        self.config = config
        self.generator, self.kp_detector = Generator(config), KeypointDetector(config)

    def network(self, name: str) -> Iterator[nn.Parameter]:
        """The parameters of "keypoints" or "generator"."""
        return (self.kp_detector if name == "keypoints" else self.generator).parameters()

    def losses(
        self, perceptual: Perceptual, source: Tensor, target: Tensor, driving: Tensor, warp: Warp | None = None
    ) -> dict[str, Tensor]:
        """The weighted losses of one batch; a random warp is drawn if none is given."""
        weights = self.config.loss
        kp_source, kp_driving = self.kp_detector(source), self.kp_detector(driving)
        prediction = self.generator(source, kp_source, kp_driving)
        losses = {"perceptual": weights.perceptual * perceptual({"fine": prediction}, target)["fine"]}
        warp = Warp.drawn(len(driving), self.config, driving.device) if warp is None else warp
        at_warped = self.kp_detector(warp.frames(driving, self.config.align_corners).detach())
        if weights.equivariance_value:
            distance = (kp_driving.value - warp(at_warped.value)).abs().mean()
            losses["equivariance_value"] = weights.equivariance_value * distance
        if weights.equivariance_jacobian and kp_driving.jacobian is not None and at_warped.jacobian is not None:
            carried = warp.jacobian(at_warped.value) @ at_warped.jacobian
            change = inverse(kp_driving.jacobian) @ carried
            distance = (torch.eye(2, device=change.device) - change).abs().mean()
            losses["equivariance_jacobian"] = weights.equivariance_jacobian * distance
        return losses

    def given(self, numbers: dict[str, Tensor]) -> dict[str, Warp]:
        """The arguments of `losses` that replace random values: `theta` and `params` of a warp."""
        return {"warp": Warp(numbers["theta"], numbers["params"])}

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam over both networks."""
        optim = self.config.optim
        betas = (optim.beta1, optim.beta2)
        return torch.optim.Adam(self.parameters(), lr=optim.learning_rate, betas=betas, fused=True)

    def begin(self, source: Tensor, first: Tensor) -> Begun:
        """Encodes the source and the first driving frame, one each."""
        return Begun(source, self.kp_detector(source), self.kp_detector(first))

    def frames(self, source_state: Begun, driving: Tensor) -> Tensor:
        """The source with the driver's motion since its first frame: (N, 3, S, S)."""
        kp_driving = self.kp_detector(driving)
        value = source_state.kp_source.value + kp_driving.value - source_state.first.value
        jacobian = None
        if kp_driving.jacobian is not None:
            assert source_state.first.jacobian is not None
            jacobian = kp_driving.jacobian @ inverse(source_state.first.jacobian) @ source_state.kp_source.jacobian
        return self.generator(source_state.source, source_state.kp_source, Keypoints(value, jacobian))
