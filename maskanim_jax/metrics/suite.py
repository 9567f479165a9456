"""Which metrics does a reconstruction report? PSNR, SSIM and LPIPS where available, and requested
back-ends.

L1 is always measured, by `reconstruction.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maskanim_jax.errors import UserError
from maskanim_jax.metrics import lpips, ssim
from maskanim_jax.metrics.identity import Identity
from maskanim_jax.metrics.interface import Metric
from maskanim_jax.metrics.keypoints import Keypoints
from maskanim_jax.metrics.psnr import Psnr
from maskanim_jax.pretrained.backends import make


class Chosen(NamedTuple):
    """The selected metrics, and the reason for each that cannot be measured."""

    metrics: list[Metric]
    not_measured: dict[str, str]

    @property
    def descriptions(self) -> dict[str, str]:
        """The description of each metric, by key."""
        return {key: text for metric in self.metrics for key, text in metric.descriptions.items()}


def select_metrics(size: int, backends: Sequence[str] = (), cache: Path | None = None) -> Chosen:
    """Selects the metrics for frames of `size` pixels. Raises UserError for an unknown or missing
    back-end.
    """
    metrics: list[Metric] = [Psnr()]
    reasons: dict[str, str] = {}
    if size < ssim.SMALLEST:
        reasons["ssim"] = f"frames of {size} pixels are smaller than its window of {ssim.SMALLEST}"
    else:
        try:
            metrics.append(ssim.Ssim())
        except UserError as error:
            reasons["ssim"] = str(error)
    if size < lpips.SMALLEST:
        reasons["lpips"] = f"frames of {size} pixels are smaller than the {lpips.SMALLEST} that AlexNet needs"
    else:
        try:
            metrics.append(lpips.Lpips(cache))
        except UserError as error:
            reasons["lpips"] = str(error)
    for name in backends:
        metrics += metrics_for_backend(make(name, cache))
    if not backends:
        reasons["akd, mkr, aed, csim"] = (
            "no landmark or identity network was named: set --config.reconstruct.backends (docs/metrics.md)"
        )
    return Chosen(metrics, reasons)


def metrics_for_backend(backend: object) -> list[Metric]:
    """AKD and MKR for a back-end with `points`, AED and CSIM for one with `embed`."""
    metrics: list[Metric] = []
    if hasattr(backend, "points"):
        metrics.append(Keypoints(backend))  # type: ignore[arg-type]
    if hasattr(backend, "embed"):
        metrics.append(Identity(backend))  # type: ignore[arg-type]
    return metrics
