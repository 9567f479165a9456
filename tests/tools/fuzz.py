"""`python tests/tools/fuzz.py SECONDS [SEED [READER ...]]`: are files changed at random read, or refused in a sentence, and never anything else?

Each reader gets mutations of a whole file, in one process with little memory. The first input that breaks a reader is kept and its name
printed, with exit status 1.
"""

import io
import json
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from input_pipeline import record, shards
from input_pipeline.preparation.boxes import read_boxes
from maskanim_jax.animation.pairs import read_pairs
from maskanim_jax.errors import UserError
from maskanim_jax.reports.run_page import summary, write_report
from maskanim_jax.serialization.npz import read_npz
from maskanim_jax.serialization.torch_reader import read_tensors
from maskanim_jax.video.animated_images import moving
from maskanim_jax.video.integrity import check_not_truncated
from maskanim_jax.workdir.config_files import read_config_json
from maskanim_jax.workdir.provenance import read_starts

MEMORY = 6 << 30  # address space
WORDS = [
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"[",
    b"{",
    b'"\\ud800"',
    b"-1",
    b"true",
    b"9" * 30,
    b'""',
    b"[]",
    b"{}",
]
"""What a JSON text may hold where something else was."""


def mutated(data, rng, text=False):
    """`data` with some bytes changed, cut out, repeated or replaced by a telling word."""
    new = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        at, kind = rng.randrange(len(new) + 1), rng.randrange(5 if text else 4)
        if kind == 0 and at < len(new):
            new[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif kind == 1:
            del new[at : at + rng.choice([1, 2, 9, 60])]
        elif kind == 2:
            new[at:at] = new[at : at + rng.randint(1, 60)] * rng.choice([1, 1, 3])
        elif kind == 3:
            size = rng.choice([2, 4, 8])
            number = rng.choice([0, 1, (1 << 8 * size) - 1, 1 << (8 * size - 1), rng.randrange(1 << 8 * size)])
            new[at : at + size] = number.to_bytes(size, rng.choice(["little", "big"]))
        else:
            end = min((i for i in (new.find(c, at) for c in b",}]") if i >= 0), default=at)
            new[at:end] = rng.choice(WORDS)
    return bytes(new)


def _npz():
    arrays = io.BytesIO()
    np.savez(
        arrays, a=np.ones((2, 3), np.float32), b=np.arange(4), c=np.asfortranarray(np.ones((3, 2))), d=np.array("x")
    )
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.zeros((50, 3), np.float32))
    return [arrays.getvalue(), packed.getvalue()]


def _torch(folder):
    from maskanim_jax.serialization.torch_writer import write_tensors

    write_tensors(
        folder / "a.pth", {"a": {"w": np.ones((2, 3), np.float32), "n": 3}, "betas": (0.5, 0.9), "e": [None, "t"]}
    )
    old = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b".\x80\x02M\xe9\x03."
    old += b"\x80\x02}q\x00(X\x0d\x00\x00\x00little_endianq\x01\x88u."
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02NtQ"
    old += (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"K\x00K\x02\x85K\x01\x85\x89}tRs."
    )
    old += b"\x80\x02]X\x01\x00\x00\x000a." + (2).to_bytes(8, "little") + bytes(8)
    return [(folder / "a.pth").read_bytes(), old]


def _record():
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    found = []
    for kind in ("JPEG", "PNG"):
        picture = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(picture, kind)
        example = tf_example_pb2.Example()
        example.features.feature["frame"].bytes_list.value.append(picture.getvalue())
        example.features.feature["clip"].bytes_list.value.append(b"a clip")
        example.features.feature["index"].int64_list.value.append(3)
        found.append(example.SerializeToString())
    return found


def _moving():
    from PIL import Image

    first, *others = [Image.new("RGB", (8, 8), (40 * i, 9, 90)) for i in range(3)]
    found = []
    for kind in ("GIF", "PNG", "WEBP"):
        file = io.BytesIO()
        first.save(file, kind, save_all=True, append_images=others, duration=80)
        found.append(file.getvalue())
    return found


def _json(value):
    return [json.dumps(value).encode()]


def _read_record(path):
    try:
        stored = record.parse(path.read_bytes())
        record.decode(stored.picture, np.empty((8, 8, 3), np.uint8))
    except ValueError as error:  # the caller knows shard and clip and makes the sentence
        raise UserError("damaged") from error


def _read_config(path):
    try:
        read_config_json(path)
    except ValueError as error:
        raise UserError(str(error)) from error


def _read_shards(path):
    index = shards.read_index(path.parent)
    for split in index["splits"]:
        shards.Split(path.parent, split, index, "")


def _report(path):
    write_report(path.parent)
    summary(path.parent)


def cases(folder):
    """Name to (whole files, name of the file, reader)."""
    figures = {
        "l1": 0.1,
        "l1_copy_source": 0.2,
        "ratio": 0.5,
        "frames": 8,
        "checkpoint_step": 3,
        "clips": [{"name": "a", "l1": 0.1}],
    }
    figures["mask"] = {"mean": 0.4, "std_space": 0.2, "std_time": 0.05, "iou": 0.5}
    log = [
        {"step": 1, "time": 10.5, "loss": 2.0, "loss_fine": 1.0},
        {"step": 2, "time": 11, "loss": 1.5, "loss_fine": 0.5},
    ]
    lines = b"".join(json.dumps(each).encode() + b"\n" for each in [*log, {"step": 3, "time": 12, "text": "said"}])
    clip = {"name": "a", "identity": "a", "first": 0, "count": 2, "fps": "25"}
    index = {"version": 1, "size": 8, "splits": {"train": {"clips": [clip]}}, "shards": {"a.array_record": 10}}
    config = {
        "system": "perturbed_masks",
        "frame_size": 32,
        "mask": {"size": 16, "num_blocks": 2},
        "loss": {"pyramid_sizes": [32, 16]},
    }
    reports = {"reconstruction.json": _json(figures), "log.jsonl": [lines], "config.json": _json(config)}
    reports |= {"departures.json": _json(["one", "two"]), "animation/captions.json": _json({"a.mp4": "a said"})}
    found = {
        "torch": (_torch(folder), "a.pth", read_tensors),
        "npz": (_npz(), "a.npz", lambda path: read_npz(path, "give another", 1 << 28)),
        "record": (_record(), "record", _read_record),
        "moving": (_moving(), "a.webp", moving),
        "boxes": ([b"clip,start,end,x0,y0,x1,y1\na.mp4,0,10,1,2,30,40\nb,,,,,,\n"], "a.csv", read_boxes),
        "pairs": ([b"source,driving\na.csv,a.csv\n"], "a.csv", lambda path: read_pairs(path, None)),
        "config": (_json(config), "config.json", _read_config),
        "shards": (_json(index), "clips.json", _read_shards),
        "starts": (
            _json({"starts": [{"time": "now", "versions": {"jax": "1"}}]}),
            "run.json",
            lambda p: read_starts(p.parent),
        ),
        "whole": (
            [b"\0\0\0\x14ftypisom\0\0\2\0isom\0\0\0\x10moov\0\0\0\x08trak\0\0\0\x08mdat"],
            "a.mp4",
            check_not_truncated,
        ),
    }
    for name, wholes in reports.items():
        inside = (lambda path: _report(path.parent)) if "/" in name else _report
        found[name] = (wholes, name, inside)
    return found


def fuzz(folder, rounds, seed=0, only=None, seconds=float("inf")):
    """Runs `rounds` mutations of each case, or until the seconds are over; returns (case, input, traceback) of what broke."""
    broken, end, done = [], time.monotonic() + seconds, 0
    rng = random.Random(seed)
    made = {name: case for name, case in cases(folder).items() if only is None or name in only}
    for _ in range(rounds):
        for name, (wholes, file, read) in made.items():
            path = folder / name.replace("/", "-") / file
            path.parent.mkdir(parents=True, exist_ok=True)
            data = mutated(rng.choice(wholes), rng, text=file.endswith(("json", "jsonl", "csv")))
            path.write_bytes(data)
            begin = time.process_time()
            try:
                read(path)
            except UserError:
                pass
            except Exception:
                broken.append((name, data, traceback.format_exc()))
                del made[name]
                break
            if time.process_time() - begin > 20:
                broken.append((name, data, "more than 20 seconds"))
            done += 1
        if time.monotonic() > end or not made:
            break
    return broken, done


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY,) * 2)
    with tempfile.TemporaryDirectory() as scratch:
        seed, only = int(sys.argv[2]) if len(sys.argv) > 2 else 0, sys.argv[3:] or None
        found, count = fuzz(Path(scratch), 1 << 30, seed, only, float(sys.argv[1]))
    for name, data, trace in found:
        kept = Path(tempfile.mkdtemp()) / name.replace("/", "-")
        kept.write_bytes(data)
        print(f"{kept}\n{trace}")
    print(f"{count} inputs, {len(found)} broke a reader")
    sys.exit(bool(found))
