"""Do all processes of a run agree? Config, data, code and workdir are
compared before the first step.

Each process has its own command line and disks. If these differ, the run would train something
undefined.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from maskanim_jax.buckets.local_paths import copy_of
from maskanim_jax.checkpoints.loading import FOLDER
from maskanim_jax.distributed import peers as hosts
from maskanim_jax.errors import UserError
from maskanim_jax.nn.kernels.native import build
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.workdir.config import flat_config
from maskanim_jax.workdir.provenance import git_revision, versions

OWN = ("data.shards", "data.num_threads", "data.prefetch", "num_cpu_devices")
"""Config fields that may differ between processes: the data's path (its fingerprint is
compared) and how it is read.
"""
_SHOWN = 8


def check_processes_agree(config: ConfigDict, data: Mapping[str, Any], **more: Any) -> None:
    """Raises UserError in all processes if config, `data` (its identity), versions or
    `more` differ between them.
    """
    peers = hosts.current()
    if peers is None and jax.process_count() == 1:
        return
    mine = {f"config.{key}": value for key, value in flat_config(config.to_dict()).items() if key not in OWN}
    mine |= {f"the data's {key}": value for key, value in data.items()} | more
    mine |= {f"the version of {name}": version for name, version in versions().items()}
    mine |= {"the git revision": git_revision(), "devices of each process": jax.local_device_count()}
    mine |= {"whether convolutions are compiled": bool(build.prefix())}  # programs that communicate must match
    if peers is not None:
        refuse_differences(peers.gather(mine))
    else:  # the processes were connected by other means
        _same_digest(mine)


def _same_digest(mine: dict[str, Any]) -> None:
    """The same check through JAX, which only gathers numbers: it cannot name what differs."""
    from jax.experimental import multihost_utils

    digest = hashlib.sha256(json.dumps(mine, sort_keys=True).encode()).digest()
    found = np.asarray(multihost_utils.process_allgather(np.frombuffer(digest, np.uint8)))
    others = [index for index, each in enumerate(found) if (each != found[0]).any()]
    if others:
        raise UserError(
            f"config, data, package versions, git revision, devices or workdir of process {', '.join(map(str, others))} differ from those of "
            "process 0: start all of them with the same command, code and data"
        )


def refuse_differences(offers: list[dict[str, Any]]) -> None:
    """Raises UserError for the first process that differs from process
    0, naming the differences.
    """
    first = offers[0]
    for index, offer in enumerate(offers):
        differ = [key for key in first.keys() | offer.keys() if first.get(key) != offer.get(key)]
        if differ:
            clauses = [
                f"{key} is {offer.get(key)} in process {index} and {first.get(key)} in process 0"
                for key in sorted(differ)
            ]
            more = f" and {len(clauses) - _SHOWN} more" if len(clauses) > _SHOWN else ""
            raise UserError(
                f"the processes differ: {'; '.join(clauses[:_SHOWN])}{more}; start all of them with the same command, code and data"
            )


def check_shared(workdir: Path) -> None:
    """Raises UserError in all processes if `workdir`, which must exist, is not the
    same folder for all of them.
    """
    peers = hosts.current()
    if peers is None:
        return
    if copy_of(workdir) is not None:  # each process has its own copy of the same address, see `agree`
        _refuse_other_folders(workdir, peers.gather([True, sorted(p.name for p in (workdir / FOLDER).glob("[0-9]*"))]))
        return
    mark = workdir / f".shared.{uuid.uuid4().hex}"
    try:
        if peers.index == 0:
            with atomic_write(mark) as temporary:
                temporary.write_text("")
        name = peers.gather(mark.name)[0]
        # Lists the folder, since a lookup of one name may be cached by a network file system.
        seen = [path.name for path in workdir.iterdir()]
        found = peers.gather([name in seen, sorted(p.name for p in (workdir / FOLDER).glob("[0-9]*"))])
    except OSError as error:
        raise UserError(
            f"{workdir} can't be used ({error.strerror}): give a --workdir that all processes can write"
        ) from error
    finally:
        mark.unlink(missing_ok=True)
    _refuse_other_folders(workdir, found)


def _refuse_other_folders(workdir: Path, found: list[list[Any]]) -> None:
    """`found`: for each process, whether it sees process 0's marker, and
    its list of checkpoints.
    """
    for index, (here, steps) in enumerate(found):
        if not here or steps != found[0][1]:
            raise UserError(
                f"{workdir} of process {index} is not the folder of process 0: give a --workdir on a disk that all processes share"
            )
