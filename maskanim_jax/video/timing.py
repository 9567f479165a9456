"""How are frame timestamps and durations represented?

Cameras, screen recorders and browsers write variable frame rates. `Timing` keeps timestamps
exactly, as whole ticks of a time base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

RATES = Fraction(1, 1000), Fraction(10_000)
"""Plausible frame rates; encoders reject rates far outside."""
STANDARD_RATES = tuple(
    Fraction(rate)
    for rate in ("24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60", "120000/1001", "120")
)
FINEST_BASE = Fraction(1, 90_000)
"""Duration of a tick in seconds, used if the file's time base is unusable."""
_STEADY = Fraction(25), Fraction(120)
_JITTER_S = 0.001


@dataclass
class Timing:
    """The start of each frame in whole ticks of `base` seconds, counted from the first frame.

    A reader records the starts while it decodes, so the starts of all frames read so far are known.
    """

    base: Fraction
    """Seconds per tick. With a constant rate, a tick is one frame."""
    rate: Fraction
    """Frames per second: exact if `constant`, else the mean over the clip."""
    constant: bool = True
    steady: Fraction = Fraction(0)
    """The frames per second for resampling to a constant rate."""
    end: int | None = None
    """The tick at which the clip's last frame ends; None: after a usual step."""
    recorded: bool = False
    """Whether the reader records starts; otherwise frame i starts at tick i."""
    starts: list[int] = field(default_factory=list)
    clock: list[Fraction] = field(default_factory=list)
    """The first frame's time on the file's own clock in seconds, once it is known."""
    first: int = 0
    """The frame of the clip that is frame 0 here; see `cut`."""
    set_back: int = 0
    """Ticks by which the file's timestamps have jumped back so far."""

    def __post_init__(self) -> None:
        self.steady = self.steady or self.rate

    @staticmethod
    def at_rate(rate: Fraction) -> Timing:
        """Frames at a constant rate (frames per second)."""
        return Timing(1 / Fraction(rate), Fraction(rate))

    def cut(self, first: int, whole: bool = True) -> Timing:
        """The timing of the frames from `first` on; `first` starts at tick 0.

        With `whole` False, the frames end before the clip does.
        """
        end = self.end if whole else None
        return replace(self, first=self.first + first, end=end)  # shares the list, which the reader fills

    @property
    def origin(self) -> Fraction | None:
        """Frame 0's time on the file's own clock in seconds; None: unknown."""
        return self.clock[0] + self._tick(self.first) * self.base if self.clock else None

    @property
    def step(self) -> int:
        """The usual duration of a frame in ticks, at least 1."""
        return max(1, round(1 / (self.rate * self.base)))

    def start(self, index: int) -> int:
        """Tick at which frame `index` starts."""
        return self._tick(self.first + index) - self._tick(self.first)

    def stop(self, count: int) -> int:
        """Tick at which the last of `count` frames ends."""
        last = self._tick(self.first + count - 1)
        if self.first + count < len(self.starts):
            end = self._tick(self.first + count)
        elif self.end is not None and self.end > last:
            end = self.end
        else:
            end = last + self.step
        return end - self._tick(self.first)

    def slot(self, tick: int) -> int:
        """How many frames at the `steady` rate start before a tick, rounded."""
        return round(tick * self.base * self.steady)

    def seconds(self, ticks: int) -> Fraction:
        """Ticks as seconds."""
        return ticks * self.base

    def record(self, index: int, time: Fraction | None) -> None:
        """Records that frame `index` of the clip is shown at `time` (seconds on the file's clock;
        None: after a usual step).
        """
        if not self.recorded or index != len(self.starts):
            return
        if not self.starts:
            self.starts.append(0)
            if time is not None:
                self.clock.append(time)
            return
        last, tick = self.starts[-1], None
        if time is not None and self.clock:
            tick = round((time - self.clock[0]) / self.base) + self.set_back
            if tick < last - self.step:  # timestamps jump back, as in concatenated recordings
                self.set_back += last + self.step - tick
                tick = last + self.step
        self.starts.append(last + self.step if tick is None else max(tick, last + 1))

    def _tick(self, index: int) -> int:
        if index < len(self.starts):
            return self.starts[index]
        if not self.starts:
            return index * self.step
        return self.starts[-1] + (index - len(self.starts) + 1) * self.step


def from_durations(durations: Sequence[Fraction]) -> Timing:
    """The timing of frames with these durations in seconds, as in a gif."""
    total = sum(durations, Fraction(0))
    rate = Fraction(len(durations)) / total
    if len(set(durations)) == 1:
        return Timing.at_rate(rate)
    base = Fraction(1, min(math.lcm(*{duration.denominator for duration in durations}), FINEST_BASE.denominator))
    starts, at = [0], durations[0]
    for duration in durations[1:]:
        starts.append(max(round(at / base), starts[-1] + 1))
        at += duration
    steady = steady_rate([float(duration) for duration in durations])
    return Timing(base, rate, constant=False, steady=steady, end=round(at / base), starts=starts)


def from_ticks(
    ticks: Sequence[int], base: Fraction, last: Fraction, stated: Sequence[Fraction], ends: Fraction | None = None
) -> Timing | None:
    """The timing of frames shown at `ticks` of `base` seconds (in order); the
    reader will record them.

    `last`: the last frame's declared duration in seconds, 0 if there is none. `stated`: the
    container's declared rates, the likeliest first. `ends`: the end of the picture on the file's
    clock, in seconds. Returns None if the ticks are not valid timestamps.
    """
    if len(ticks) < 2 or ticks[-1] <= ticks[0]:
        return None
    times = (np.asarray(ticks, np.float64) - ticks[0]) * float(base)
    steps = np.diff(times)
    usual = float(np.median(steps[-10:]))
    shown = last or Fraction(usual).limit_denominator(FINEST_BASE.denominator)
    if ends is not None and ends - ticks[-1] * base > shown + Fraction(usual / 2):
        shown = ends - ticks[-1] * base
    span = (ticks[-1] - ticks[0]) * base
    mean = (len(ticks) - 1) / span
    stated = [next((rate for rate in STANDARD_RATES if _near(rate, given, 1e-5)), given) for given in stated]
    near = [rate for rate in STANDARD_RATES if _near(rate, mean, 2e-3)]
    for rate in (*stated, *near, mean.limit_denominator(100_000)):
        if believed(rate) and float(shown) < 1.5 / rate and _fits(times, rate, float(base)):
            return Timing(1 / rate, rate, recorded=True)
    mean = (len(ticks) / (span + shown)).limit_denominator(100_000)
    if not believed(mean):
        return None
    if base < Fraction(1, 1_000_000):
        base = FINEST_BASE  # some containers do not support a finer one
    end = round((span + shown) / base)
    steady = next((rate for rate in stated if rate <= _STEADY[1] and _on_grid(times, rate)), None) or steady_rate(steps)
    return Timing(base, mean, constant=False, steady=steady, end=end, recorded=True)


def believed(rate: Fraction | None) -> bool:
    """Whether a camera or program plausibly has this frame rate."""
    return rate is not None and RATES[0] <= rate <= RATES[1]


def steady_rate(steps: Sequence[float] | np.ndarray) -> Fraction:
    """A constant rate (frames per second) that preserves frames with these steps (seconds) well:
    the rate of their densest stretch, from 25 to 120.
    """
    steps = np.asarray(steps, np.float64)
    width = min(2, len(steps))  # screen recorders alternate between short and long steps
    means = np.convolve(steps, np.full(width, 1 / width), "valid")
    rate = min(max(1 / max(float(np.quantile(means, 0.1)), 1e-9), float(_STEADY[0])), float(_STEADY[1]))
    whole = (standard for standard in STANDARD_RATES if standard.denominator == 1)
    nearest = min(whole, key=lambda standard: abs(float(standard) / rate - 1))
    return nearest if abs(float(nearest) / rate - 1) < 0.04 else Fraction(round(rate))


def _near(rate: Fraction, other: Fraction, share: float) -> bool:
    return abs(float(rate / other) - 1) < share


def _on_grid(times: np.ndarray, rate: Fraction) -> bool:
    """Whether all durations are whole numbers of frames of a constant rate."""
    slots = times * float(rate)
    return bool(np.abs(slots - np.rint(slots)).max() < 0.1)


def _fits(times: np.ndarray, rate: Fraction, tick: float) -> bool:
    """Whether times (seconds) have a constant rate, up to rounding to ticks (seconds) and a
    jitter of a millisecond.
    """
    off = times - np.arange(len(times)) / float(rate)
    return bool(off.max() - off.min() <= min(max(tick, _JITTER_S) + 1e-6, 0.3 / float(rate)))
