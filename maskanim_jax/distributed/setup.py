"""What must be configured before JAX is used?

The compilation cache, CPU devices, and the other processes.
"""

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
from maskanim_jax.utils.environment import seconds_of

OTHERS = "MASKANIM_DISTRIBUTED"
"""Environment variable: "1" if JAX finds the processes itself (Slurm, TPU, Open MPI), else
ADDRESS:PORT,COUNT,INDEX.
"""
TIMEOUT_VARIABLE = "MASKANIM_DISTRIBUTED_WAIT"
"""Environment variable: seconds to wait for the other processes at the start; default 300."""
HEARTBEAT = 60
"""Seconds after which JAX itself considers a process lost; peers.py is faster."""
_KEY = "maskanim_jax/watch"


def configure_jax(config: ConfigDict) -> None:
    """Enables the compilation cache, creates CPU devices, and joins the processes
    of MASKANIM_DISTRIBUTED.

    Without a GPU or TPU, two CPU devices are faster if XLA's convolutions are used, which run
    narrow ones on one core. The native convolutions (nn/kernels/native) use all cores of one
    device, which is faster still. `config.num_cpu_devices` 0 chooses accordingly. Raises UserError
    when MASKANIM_DISTRIBUTED is invalid or other processes do not join.
    """
    if others := os.environ.get(OTHERS):
        _join(others)
    devices = config.num_cpu_devices or _fastest()
    if devices > 1 and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX is already initialised, so its devices stay unchanged
            jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(default_cache() / "xla")
    )
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # The many small programs of a start are cached, too.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _fastest() -> int:
    """Devices for `num_cpu_devices` 0."""
    return 1 if build.load().prefix else min(2, os.cpu_count() or 1)


def _join(others: str) -> None:
    """Connects to the other processes, then initialises JAX; from then on they all end
    together (see peers.py).
    """
    if jax.distributed.is_initialized():
        return  # a notebook may train twice
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # for processes without accelerators
    timeout_s = seconds_of(TIMEOUT_VARIABLE, 300.0, least=1.0)
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
    """The same if JAX finds the processes: process 0 announces its port and a secret
    in JAX's key-value store.
    """
    try:
        from jax._src.distributed import global_state

        # jax.process_index() would start the devices.
        index, count = global_state.process_id, global_state.num_processes
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
        # Not fatal: JAX then detects a lost process, later and with its own message.
        print(f"the processes are not watched: {error}", file=sys.stderr)
        return
    peers.start_watchdog(index, count, connections)
