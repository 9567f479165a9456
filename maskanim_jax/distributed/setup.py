"""What is set once in a process before JAX is used: the compilation cache, CPU devices, the other processes."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import jax
from ml_collections import ConfigDict

from maskanim_jax.distributed import peers
from maskanim_jax.distributed.rendezvous import connect, listen, receive
from maskanim_jax.distributed.secret import drawn
from maskanim_jax.errors import UserError
from maskanim_jax.nn.kernels.native import build
from maskanim_jax.utils.cache import default_cache

OTHERS = "MASKANIM_DISTRIBUTED"
"""Environment variable: "1" where JAX finds the other processes by itself (Slurm, TPU pods, Open MPI), else ADDRESS:PORT,COUNT,INDEX."""
TIMEOUT_VARIABLE = "MASKANIM_DISTRIBUTED_WAIT"
"""Environment variable: seconds to wait for the other processes at the start; 300 without it."""
HEARTBEAT = 60
"""Seconds after which JAX itself takes a process for lost; peers.py is faster."""
_KEY = "maskanim_jax/watch"


def configure_jax(config: ConfigDict) -> None:
    """Turns on the persistent compilation cache, makes `config.num_cpu_devices`, joins the other processes when MASKANIM_DISTRIBUTED is set.

    Without a GPU or TPU a mesh of CPU devices is worth having where convs are XLA's: it runs a narrow one on one core, two devices run two of
    them. The compiled ones (nn/kernels/native) use all cores on one device, which is faster. 0 devices: whichever it is.
    Raises UserError when MASKANIM_DISTRIBUTED cannot be read, or the other processes do not come.
    """
    if others := os.environ.get(OTHERS):
        _join(others)
    devices = config.num_cpu_devices or _fastest()
    if devices > 1 and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX is in use already: its devices stay what they are
            jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(default_cache() / "xla")
    )
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update(
            "jax_persistent_cache_min_compile_time_secs", 0.3
        )  # the many small programs of a start count too


def _fastest() -> int:
    """Devices for `num_cpu_devices` 0."""
    return 1 if build.load().prefix else min(2, os.cpu_count() or 1)


def _join(others: str) -> None:
    """Meets the other processes, then has JAX do so; from here on the end of one is the end of all (see peers.py)."""
    if jax.distributed.is_initialized():
        return  # a notebook trains twice
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # between processes without accelerators
    timeout_s = _timeout_s()
    if "," not in others:
        jax.distributed.initialize(initialization_timeout=round(timeout_s), heartbeat_timeout_seconds=HEARTBEAT)
        _watch_found(timeout_s)
        return
    try:
        address, *numbers = others.split(",")
        host, _, port = address.rpartition(":")
        count, index = (int(number) for number in numbers)
        if not (0 <= index < count and host and 0 < int(port) < 1 << 16):
            raise ValueError
    except ValueError as error:
        raise UserError(
            f"{OTHERS}={others} cannot be read: give ADDRESS:PORT,COUNT,INDEX, such as localhost:1234,2,0, or 1"
        ) from error
    if count > 1:
        peers.start_watchdog(index, count, connect(host.strip("[]"), int(port), count, index, timeout_s))
    jax.distributed.initialize(
        address, count, index, initialization_timeout=round(timeout_s), heartbeat_timeout_seconds=HEARTBEAT
    )


def _watch_found(timeout_s: float) -> None:
    """The same where JAX found the others by itself: process 0 tells its port and a secret through JAX's own service."""
    try:
        from jax._src.distributed import global_state

        index, count = (
            global_state.process_id,
            global_state.num_processes,
        )  # jax.process_index() would start the devices
        if count == 1:
            return
        client: Any = global_state.client
        host = str(global_state.coordinator_address).rpartition(":")[0].strip("[]")
        if index == 0:
            servers, secret = listen(host, 0), drawn()
            client.key_value_set(_KEY, f"{servers[0].getsockname()[1]} {secret}")
            connections = receive(servers, count, timeout_s, secret)
        else:
            port, secret = client.blocking_key_value_get(_KEY, round(1000 * timeout_s)).split()
            connections = connect(host, int(port), count, index, timeout_s, secret)
    except (ImportError, AttributeError, TypeError, UserError) as error:
        # The run can do without: then JAX notices a lost process, later and in its own words.
        print(f"the processes are not watched: {error}", file=sys.stderr)
        return
    peers.start_watchdog(index, count, connections)


def _timeout_s() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, "300")
    try:
        seconds = float(text)
        if not 1 <= seconds <= 86400:
            raise ValueError
    except ValueError as error:
        raise UserError(f"{TIMEOUT_VARIABLE}={text} must be seconds, from 1 to 86400") from error
    return seconds
