"""How is HDR video (PQ or HLG, as phones record it) converted to 8-bit sRGB?

With FFmpeg's floating-point filters: the signal is converted to linear light (`lut1d`), BT.2020 to
BT.709 (`colorchannelmixer`), highlights are compressed (`tonemap`), and linear light is converted
to sRGB (`lut1d`). Light of 203 cd/m^2, the reference white of ITU-R BT.2408, becomes white.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.filter import Graph
from av.filter.context import FilterContext

PQ, HLG = 16, 18
"""AVCOL_TRC_SMPTE2084 and AVCOL_TRC_ARIB_STD_B67."""
_WHITE, _PEAK = 203.0, 1000.0  # cd/m^2
_OF_SDR = {1, 5, 6, 7}
"""AVCOL_PRI of BT.709 and older standards, which are not HDR."""
_LUMA = (0.2627, 0.6780, 0.0593)
_RANGES = {1: "limited", 2: "full"}
_MATRICES = {1: "bt709", 5: "bt470bg", 6: "smpte170m", 9: "bt2020nc", 10: "bt2020c", 14: "ictcp"}
_TO_BT709 = ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730))


def is_hdr(frame: av.VideoFrame) -> bool:
    """Whether the frame's values are coded for HDR."""
    return frame.color_trc in (PQ, HLG)


class ToneMapper:
    """Converts the frames of one clip, all of one size and format, from PQ or HLG to sRGB."""

    def __init__(self) -> None:
        self._built: tuple[object, ...] = ()
        self._graph = Graph()

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame as rgb24."""
        like = (frame.width, frame.height, frame.format.name, frame.color_trc, frame.colorspace, frame.color_range)
        if like != self._built:
            self._graph, self._built = _graph(frame), like
        frame.pts = 0
        self._graph.vpush(frame)
        mapped = self._graph.vpull()
        assert isinstance(mapped, av.VideoFrame)
        return mapped


def pq_light(signal: np.ndarray) -> np.ndarray:
    """PQ signal in [0, 1] to light, in units of white (SMPTE ST 2084)."""
    power = np.asarray(signal, np.float64) ** (32 / 2523)
    light = np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
    return 10_000 / _WHITE * light ** (16384 / 2610)


def hlg_light(signal: np.ndarray) -> np.ndarray:
    """HLG signal in [0, 1] to scene light (ITU-R BT.2100), in units of white on
    a display of 1000 cd/m^2.
    """
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal = np.asarray(signal, np.float64)
    return _PEAK / _WHITE * np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def srgb(light: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to the sRGB signal in [0, 1]."""
    light = np.asarray(light, np.float64)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _graph(frame: av.VideoFrame) -> Graph:
    wide = frame.color_primaries not in _OF_SDR
    matrix = _MATRICES.get(int(frame.colorspace), "bt2020nc")
    hlg = frame.color_trc == HLG
    graph = Graph()
    with tempfile.TemporaryDirectory() as folder:
        to_light = _table(Path(folder) / "light.cube", hlg_light if hlg else pq_light, 4096)
        gain = _table(Path(folder) / "gain.cube", lambda luma: luma**0.2, 16384)
        to_srgb = _table(Path(folder) / "srgb.cube", srgb, 16384)
        last = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1)
        )
        last = _chain(
            graph,
            last,
            ("setparams", f"range={_RANGES.get(int(frame.color_range), 'limited')}:colorspace={matrix}"),
            ("format", "gbrpf32le"),
            ("lut1d", f"file={to_light}"),
        )
        if hlg:  # the display gamma of 1.2 applies to luminance: each channel is multiplied by luminance^0.2
            split, product = graph.add("split"), graph.add("blend", "all_mode=multiply")
            last.link_to(split)
            luma = graph.add("colorchannelmixer", _mixing(np.outer(np.ones(3), _LUMA) * _WHITE / _PEAK))
            split.link_to(luma, 1, 0)
            split.link_to(product, 0, 0)
            _chain(graph, luma, ("lut1d", f"file={gain}")).link_to(product, 0, 1)
            last = product
        last = _chain(
            graph,
            last,
            ("colorchannelmixer", _mixing(_TO_BT709 if wide else np.eye(3))),
            ("setparams", "color_trc=linear"),
            ("tonemap", f"mobius:param=0.9:peak={_PEAK / _WHITE:.4f}:desat=0"),
            ("lut1d", f"file={to_srgb}"),
            ("setparams", "color_trc=iec61966-2-1:color_primaries=bt709"),
            ("format", "rgb24"),
        )
        last.link_to(graph.add("buffersink"))
        graph.configure()  # reads the tables
    return graph


def _chain(graph: Graph, last: FilterContext, *filters: tuple[str, str]) -> FilterContext:
    for name, options in filters:
        entry = graph.add(name, options)
        last.link_to(entry)
        last = entry
    return last


def _mixing(rows: Sequence[Sequence[float]] | np.ndarray) -> str:
    """The options of `colorchannelmixer` for a 3 x 3 matrix."""
    return ":".join(f"{out}{into}={rows[i][j]:.6f}" for i, out in enumerate("rgb") for j, into in enumerate("rgb"))


def _table(path: Path, curve: Callable[[np.ndarray], np.ndarray], size: int) -> Path:
    lines = (f"{value:.8g} {value:.8g} {value:.8g}\n" for value in curve(np.linspace(0, 1, size)))
    path.write_text(f"LUT_1D_SIZE {size}\n{''.join(lines)}")
    return path
