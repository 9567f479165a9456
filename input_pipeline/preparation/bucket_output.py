"""How are prepared shards written to a bucket?

They are made in the local cache, then uploaded. The index goes last: without
it the set is incomplete.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from input_pipeline.preparation.merge import REPORT
from input_pipeline.preparation.pipeline import Job, run
from input_pipeline.preparation.shard_jobs import spec_key
from input_pipeline.shards import INDEX
from maskanim_jax.buckets.address import Address
from maskanim_jax.buckets.client import Bucket, in_parallel, md5_of
from maskanim_jax.buckets.connection import cache_folder, cache_name
from maskanim_jax.errors import UserError


def run_to_bucket(job: Job, address: Address, overwrite: bool) -> dict[str, Any]:
    """Like `pipeline.run`, with a folder in a bucket as output. Returns the report.

    The same command resumes a killed preparation or upload.
    """
    bucket = Bucket(address.bucket)
    there = bucket.list(address.prefix)
    if address.prefix + INDEX in there:
        if not overwrite:
            raise UserError(f"{address} already exists; choose another --output, or replace it with --overwrite")
    elif not _is_part_of_a_set(there):
        raise UserError(f"{address} holds objects that are not shards; choose another --output")
    folder, made_of = _staging(job, address)
    stamp = folder.with_name(f"{folder.name}.json")
    try:
        if not ((folder / INDEX).is_file() and stamp.is_file() and json.loads(stamp.read_text()) == made_of):
            folder.parent.mkdir(parents=True, exist_ok=True)
            stamp.unlink(missing_ok=True)
            run(job, folder, overwrite=True)
            stamp.write_text(json.dumps(made_of))
        report = json.loads((folder / REPORT).read_text())
        _upload(bucket, address, folder)
        shutil.rmtree(folder)
        stamp.unlink()
    except OSError as error:
        raise UserError(
            f"{folder} can't be used ({error.strerror}): free space, or set MASKANIM_BUCKET_CACHE to another disk"
        ) from error
    return report


def _staging(job: Job, address: Address) -> tuple[Path, str]:
    """The local folder for the set, and a hash of everything that the set is made from."""
    specs, left_out = job.plan()
    made_of = hashlib.sha256(repr([job.name, left_out]).encode("utf-8", "surrogateescape"))
    for spec in specs:
        made_of.update(spec_key(spec, job.settings).encode())
    return cache_folder() / "prepared" / cache_name(address), made_of.hexdigest()


def _is_part_of_a_set(names: dict[str, Any]) -> bool:
    """Whether all objects are what a killed upload may leave behind."""
    known = ("dataset_info.json", "features.json", REPORT)
    return all(".array_record-" in name or name.endswith(known) for name in names)


def _upload(bucket: Bucket, address: Address, folder: Path) -> None:
    from maskanim_jax.utils.progress import ProgressBar

    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    there = {name.removeprefix(address.prefix): stored for name, stored in bucket.list(address.prefix).items()}
    if INDEX in there and there[INDEX].md5 != md5_of(files[INDEX]):
        bucket.delete(address.prefix + INDEX)  # the old set becomes incomplete here
    in_parallel(functools.partial(bucket.delete, address.prefix + name) for name in there.keys() - files.keys())
    total = sum(path.stat().st_size for path in files.values())
    with ProgressBar(total=total, desc=f"upload to {address}", unit="B", unit_scale=True) as bar:

        def put(name: str) -> None:
            if name not in there or there[name].md5 != md5_of(files[name]):
                bucket.upload(address.prefix + name, files[name])
            bar.update(files[name].stat().st_size)

        in_parallel(functools.partial(put, name) for name in files if name != INDEX)
        put(INDEX)
