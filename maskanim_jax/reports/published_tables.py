"""What do the two papers report? Their tables as data, always shown apart from measured figures.

They were measured on other data, at 256 x 256, after days of training, with networks many times
larger than those of the small configs.
"""

from __future__ import annotations

from typing import NamedTuple


class Table(NamedTuple):
    """One published table: a heading per column, a name and cell texts per row; a dash if
    the paper has no number.
    """

    title: str
    paper: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    note: str


PERTURBED_MASKS = "Shalev and Wolf, Image Animation with Perturbed Masks, CVPR 2022"
FOMM = "Siarohin et al., First Order Motion Model for Image Animation, NeurIPS 2019"

_T = "Tai-Chi-HD"
_V = "VoxCeleb"
TABLES = (
    Table(
        "Table 1: video reconstruction, lower is better",
        PERTURBED_MASKS,
        (f"{_T} L1", f"{_T} AKD", f"{_T} MKR", f"{_T} AED", f"{_V} L1", f"{_V} AKD", f"{_V} AED", "BAIR L1"),
        (
            ("X2Face", ("0.080", "17.654", "0.109", "0.272", "0.078", "7.687", "0.405", "0.065")),
            ("Monkey-Net", ("0.077", "10.798", "0.059", "0.228", "0.049", "1.878", "0.199", "0.034")),
            ("FOMM", ("0.063", "6.862", "0.036", "0.179", "0.043", "1.294", "0.140", "0.027")),
            ("Perturbed Masks", ("0.047", "4.239", "0.015", "0.147", "0.034", "1.329", "0.130", "0.021")),
        ),
        "The improvement over FOMM that the paper states: 25.4, 38.2, 58.3 and 17.9 %, 20.9, -2.7 and 7.1 %, 22.2 %.",
    ),
    Table(
        "Table 2: VoxCeleb1, few-shot learning, higher is better",
        PERTURBED_MASKS,
        ("frames for fine-tuning", "SSIM", "CSIM"),
        (
            ("X2Face", ("1 / 8 / 32", "0.68 / 0.73 / 0.75", "0.16 / 0.17 / 0.18")),
            ("Pix2PixHD", ("1 / 8 / 32", "0.56 / 0.64 / 0.70", "0.09 / 0.12 / 0.16")),
            ("FSAL", ("1 / 8 / 32", "0.67 / 0.71 / 0.74", "0.15 / 0.17 / 0.19")),
            ("Perturbed Masks", ("0", "0.80", "0.70")),
        ),
        "",
    ),
    Table(
        "Table 3: share of videos chosen as best in the user study",
        PERTURBED_MASKS,
        ("X2Face", "Monkey-Net", "FOMM", "Perturbed Masks"),
        (
            (f"quality, {_T}", ("0 %", "4 %", "16 %", "80 %")),
            (f"quality, {_V}", ("0 %", "8 %", "16 %", "76 %")),
            ("quality, BAIR", ("0 %", "4 %", "24 %", "72 %")),
            (f"motion, {_T}", ("0 %", "4 %", "8 %", "88 %")),
            (f"motion, {_V}", ("0 %", "0 %", "12 %", "88 %")),
            ("motion, BAIR", ("4 %", "4 %", "16 %", "76 %")),
        ),
        "",
    ),
    Table(
        f"Table 1: ablation, video reconstruction on {_T}, lower is better",
        FOMM,
        ("L1", "AKD", "MKR", "AED"),
        (
            ("Baseline", ("0.073", "8.945", "0.099", "0.235")),
            ("Pyr.", ("0.069", "9.407", "0.065", "0.213")),
            ("Pyr. + O", ("0.069", "8.773", "0.050", "0.205")),
            ("Jac. without Eq. 12", ("0.073", "9.887", "0.052", "0.220")),
            ("Full", ("0.063", "6.862", "0.036", "0.179")),
        ),
        "",
    ),
    Table(
        "Table 2: paired user study, share that preferred FOMM",
        FOMM,
        ("over X2Face", "over Monkey-Net"),
        (
            (_T, ("92.0 %", "80.6 %")),
            (_V, ("95.8 %", "68.4 %")),
            ("Nemo", ("79.8 %", "60.6 %")),
            ("BAIR", ("95.0 %", "67.0 %")),
        ),
        "",
    ),
)
