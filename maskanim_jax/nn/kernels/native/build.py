"""How do the C++ convolutions get onto this machine? Compiled once for its processor, and kept in the user's cache.

Nothing needs them: without a compiler, or with `MASKANIM_NATIVE=0`, convolutions are XLA's, slower and equal up to rounding.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import jax

from maskanim_jax.utils.cache import default_cache

SWITCH = "MASKANIM_NATIVE"
"""Environment variable: "0" leaves the compiled convolutions out."""
SOURCES = Path(__file__).parent
UNITS = ("handlers.cc", "winograd.cc", "thin.cc", "direct.cc", "product.cc", "work.cc")
"""The longest first: as many at a time as there are cores."""
HANDLERS = ("convolution", "kernel_gradient")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-std=c++17", "-march=native", "-fPIC", "-pthread")
PATIENCE = 300
"""Seconds for each file, of which the longest takes about 4."""
_portable: ContextVar[bool] = ContextVar("portable", default=False)


class Found(NamedTuple):
    """The prefix of the registered functions' names, or the reason why there are none."""

    prefix: str
    reason: str


@contextmanager
def portable() -> Iterator[None]:
    """What is traced within runs on machines that do not have the compiled functions: for exports."""
    before = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(before)


def prefix() -> str:
    """The prefix of the functions' names for what is traced now; empty where there are none."""
    return "" if _portable.get() or jax.default_backend() != "cpu" else found().prefix


def told() -> str:
    """For log and run.json: whose convolutions these are."""
    if jax.default_backend() != "cpu":
        return "XLA's"
    return f"compiled, {found().prefix}" if found().prefix else f"XLA's, since {found().reason}"


@functools.cache
def found() -> Found:
    """Compiles what is not compiled yet, loads it and tells XLA, once in a process. Never raises."""
    if os.environ.get(SWITCH) == "0":
        return Found("", f"{SWITCH}=0")
    command = _command()
    if not command:
        return Found("", f"there is no C++ compiler ({', '.join(COMPILERS)}, or $CXX)")
    digest = _digest(command)
    try:
        library = ctypes.CDLL(str(_kept(digest) or _compile(command, digest)))
        for name in HANDLERS:
            handler = jax.ffi.pycapsule(getattr(library, f"maskanim_{name}"))
            # The name has the sources in it: a program of other sources in XLA's cache is another program.
            jax.ffi.register_ffi_target(f"maskanim_{digest}_{name}", handler, platform="cpu")
    except subprocess.CalledProcessError as error:
        return Found("", f"{command[0]} cannot compile them: {_last_line(error.stderr)}")
    except Exception as error:  # whatever it is, XLA's convolutions do
        return Found("", f"{type(error).__name__}: {error}")
    return Found(f"maskanim_{digest}", "")


def _command() -> list[str]:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    compiler = next((path for name in names if (path := shutil.which(name))), None)
    return [compiler, *FLAGS, "-isystem", jax.ffi.include_dir()] if compiler else []


def _digest(command: list[str]) -> str:
    """Of all that the compiled file depends on; the processor among them."""
    parts = [*command, jax.lib.__version__, platform.machine(), sys.platform, _processor()]
    parts += [path.read_text() for path in sorted(SOURCES.glob("*.[hc]*")) if path.suffix in (".h", ".cc")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What the processor can do; a cache may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def _folder() -> Path:
    return default_cache() / "native"


def _kept(digest: str) -> Path | None:
    """What was compiled before, if it is what it was: its name has the hash of its content. Running a damaged one could end the process."""
    whole = (path for path in _folder().glob(f"{digest}-*.so") if path.stem == f"{digest}-{_hash(path)}")
    return next(whole, None)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _compile(command: list[str], digest: str) -> Path:
    _folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_folder()) as temporary:
        made = Path(temporary) / "made.so"

        def compiled(unit: str) -> str:
            into = str(Path(temporary) / f"{unit}.o")
            _run([*command, "-c", str(SOURCES / unit), "-o", into])
            return into

        with ThreadPoolExecutor(os.cpu_count()) as cores:
            units = list(cores.map(compiled, UNITS))
        _run([*command, "-shared", *units, "-o", str(made)])
        path = _folder() / f"{digest}-{_hash(made)}.so"
        os.replace(made, path)
    return path


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if "error" in line] or text.splitlines() or ["no reason given"]
    return lines[0][:200]
