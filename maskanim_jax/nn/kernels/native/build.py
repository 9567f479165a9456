"""How are the C++ convolutions built? They are compiled once for this processor and
kept in the user's cache.

They are optional: without a compiler, or with `MASKANIM_NATIVE=0`, XLA's convolutions are used,
which are slower and equal up to rounding.
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
"""Environment variable: "0" disables the compiled convolutions."""
SOURCES = Path(__file__).parent
UNITS = ("handlers.cc", "winograd.cc", "thin.cc", "direct.cc", "matmul.cc", "parallel.cc")
"""The sources, slowest to compile first; one per core is compiled at a time."""
HANDLERS = ("convolution", "kernel_gradient")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-std=c++17", "-march=native", "-fPIC", "-pthread")
COMPILE_TIMEOUT_S = 300
"""Limit for each file; the slowest takes about 4 seconds."""
_disabled: ContextVar[bool] = ContextVar("portable", default=False)


class NativeLibrary(NamedTuple):
    """The prefix of the registered functions' names, or the reason why they are not available."""

    prefix: str
    reason: str


@contextmanager
def disable_native() -> Iterator[None]:
    """Code traced inside this context uses XLA's convolutions only, so that
    exports run on other machines.
    """
    before = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(before)


def prefix() -> str:
    """The prefix of the compiled functions' names for the code being traced;
    empty if XLA's are used.
    """
    return "" if _disabled.get() or jax.default_backend() != "cpu" else load().prefix


def describe_backend() -> str:
    """One clause for the log and run.json: which convolutions are used, and why."""
    if jax.default_backend() != "cpu":
        return "XLA's"
    return f"compiled, {load().prefix}" if load().prefix else f"XLA's, since {load().reason}"


@functools.cache
def load() -> NativeLibrary:
    """Compiles the library if needed, loads it and registers it with XLA, once per process.

    Never raises.
    """
    if os.environ.get(SWITCH) == "0":
        return NativeLibrary("", f"{SWITCH}=0")
    command = _command()
    if not command:
        return NativeLibrary("", f"there is no C++ compiler ({', '.join(COMPILERS)}, or $CXX)")
    digest = _digest(command)
    try:
        library = ctypes.CDLL(str(_cached(digest) or _compile(command, digest)))
        for name in HANDLERS:
            handler = jax.ffi.pycapsule(getattr(library, f"maskanim_{name}"))
            # The name contains the hash of the sources, so that XLA's cache never mixes programs of different sources.
            jax.ffi.register_ffi_target(f"maskanim_{digest}_{name}", handler, platform="cpu")
    except subprocess.CalledProcessError as error:
        return NativeLibrary("", f"{command[0]} cannot compile them: {_last_line(error.stderr)}")
    except Exception as error:  # XLA's convolutions work in any case
        return NativeLibrary("", f"{type(error).__name__}: {error}")
    return NativeLibrary(f"maskanim_{digest}", "")


def _command() -> list[str]:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    compiler = next((path for name in names if (path := shutil.which(name))), None)
    return [compiler, *FLAGS, "-isystem", jax.ffi.include_dir()] if compiler else []


def _digest(command: list[str]) -> str:
    """Hash of everything that the compiled file depends on, including the processor."""
    parts = [*command, jax.lib.__version__, platform.machine(), sys.platform, _processor()]
    parts += [path.read_text() for path in sorted(SOURCES.glob("*.[hc]*")) if path.suffix in (".h", ".cc")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """The processor's features; different machines may share a cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def _folder() -> Path:
    return default_cache() / "native"


def _cached(digest: str) -> Path | None:
    """The library compiled earlier, if it is intact: its name contains the hash of its content.

    Running a damaged one could end the process.
    """
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
    subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S
    )


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if "error" in line] or text.splitlines() or ["no reason given"]
    return lines[0][:200]
