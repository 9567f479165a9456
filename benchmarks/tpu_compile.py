"""What would a training step cost on a TPU?

`python benchmarks/tpu_compile.py` compiles it for a TPU on a CPU, without running it.

It needs libtpu (`pip install 'jax[tpu]'`) and time: a 256 x 256 step takes tens of minutes and
several GB on two cores. Every finished cell (label, topology, batch, precision) is therefore
written to a JSON file at once and not compiled again; `--table` prints the file. The step is the
one that training runs (`maskanim_jax.training.step.make_train_step`) with the released taichi
settings, on a mesh of the topology's devices, compiled from names and shapes only.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
# Set before importing JAX: libtpu would look for a TPU's metadata server and for other processes that use the chips.
os.environ |= {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
}

import hlo_traffic  # noqa: E402
from tqdm import tqdm  # noqa: E402

from maskanim_jax.errors import UserError, run_main  # noqa: E402

TOPOLOGIES = ("v5e:2x2", "v5e:2x4", "v5e:4x4")
BATCHES = (16, 64, 256)
PRECISIONS = ("float32", "bfloat16")
HBM = 16e9
"""Memory of a v5e chip in bytes; XLA leaves about 0.25 GiB of it unused."""


def taichi(precision: str, batch: int, small: bool) -> Any:
    """The released taichi config; `small` shrinks it to a step that compiles in a minute
    or two, to test this tool.
    """
    from configs import taichi

    c = taichi.get_config("released")
    c.precision, c.batch_size = precision, batch
    if small:
        c.frame_size, c.mask.size = 64, 16
        c.loss.pyramid_sizes = c.loss.coarse_pyramid_sizes = (64,)
        c.loss.vgg_layers = c.loss.vgg_layers[:2]
        for network in (c.mask, c.refine, c.fine):
            network.width, network.num_blocks, network.max_width = 8, 2, 32
        c.coarse.width, c.coarse.residual_blocks = 16, 1
    return c


def lower(config: Any, topology: str) -> Any:
    """The lowered step for a topology such as "v5e:2x4"; raises UserError when libtpu is
    missing or does not know it.
    """
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh

    from maskanim_jax.losses.vgg import used_weights
    from maskanim_jax.pretrained.vgg19 import untrained_vgg19
    from maskanim_jax.systems import build
    from maskanim_jax.systems.train_state import abstract_state
    from maskanim_jax.training.step import make_train_step

    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # libtpu may raise anything
        reason = str(error).split("\n")[0]
        raise UserError(
            f"topology {topology} is not available ({reason}): pip install 'jax[tpu]', and give one such as v5e:2x4"
        ) from error
    if config.batch_size % len(devices):
        raise UserError(
            f"--batch {config.batch_size} can't be split over the {len(devices)} chips of {topology}: give a multiple"
        )
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    system, steps_per_epoch = build(config), 1000
    vgg = used_weights(untrained_vgg19(0), config.loss.vgg_layers)
    frozen = {name: jax.ShapeDtypeStruct(np.shape(value), np.float32) for name, value in vgg.items()}
    frames = jax.ShapeDtypeStruct((config.batch_size, config.frame_size, config.frame_size, 3), np.uint8)
    step: Any = make_train_step(system, config.seed, steps_per_epoch, mesh)
    return step.lower(abstract_state(system, config.seed, steps_per_epoch), frozen, frames, frames)


def measure(lowered: Any, options: dict[str, str], keep: Path | None) -> dict[str, Any]:
    """Compiles, and returns what the compiled step needs and moves on each chip.

    A step that is too large for HBM is a valid result.
    """
    since = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=options or None)
    except Exception as error:
        needed = re.search(r"(?:Used |temporaries \()([\d.]+)([GM])", str(error))
        if "RESOURCE_EXHAUSTED" not in str(error) or not needed:
            raise
        gib = float(needed[1]) / (1024 if needed[2] == "M" else 1)
        return {"fits": False, "total_bytes": gib * 2**30, "compile_seconds": time.perf_counter() - since}
    seconds, text = time.perf_counter() - since, compiled.as_text()
    if keep:
        temporary = keep.with_name(f".{keep.name}.{os.getpid()}")
        with gzip.open(temporary, "wt") as file:
            file.write(text)
        os.replace(temporary, keep)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    parts = hlo_traffic.moved(text)
    total = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    return {
        "fits": total <= HBM,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "reused_bytes": memory.alias_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "total_bytes": total,
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "optimal_seconds": cost.get("optimal_seconds"),
        "stored_bytes": sum(part.stored for part in parts),
        "hbm_bytes": sum(part.hbm for part in parts),
        "logical_bytes": sum(part.logical for part in parts),
        "estimated_seconds": sum(part.cycles for part in parts) / hlo_traffic.CYCLES_PER_SECOND,
        "collectives": hlo_traffic.collectives(text),
        "compile_seconds": seconds,
    }


def table(cells: list[dict[str, Any]]) -> str:
    """The cells as Markdown; all numbers are per chip and step."""
    lines = [
        "| code | topology | batch | precision | arguments | temporaries | total | fits 16 GB | TFLOP | GB accessed | of it HBM | ms at 197 TFLOP/s "
        "| ms at 819 GB/s | ms by cycles | collectives | compile |",
        "| --- " * 16 + "|",
    ]
    for cell in cells:
        head = f"| {cell['label']} | {cell['topology'].split(':')[-1]} | {cell['batch']} | {cell['precision']} |"
        tail = f" {cell['compile_seconds'] / 60:.0f} min |"
        if "flops" not in cell:
            lines.append(f"{head} | | {cell['total_bytes'] / 1e9:.1f} GB | no | | | | | | | |{tail}")
            continue
        gigabytes = " | ".join(f"{cell[f'{what}_bytes'] / 1e9:.1f} GB" for what in ("argument", "temporary", "total"))
        said = ", ".join(
            f"{one['count']} {kind} of {one['bytes'] / 1e6:.0f} MB" for kind, one in cell["collectives"].items()
        )
        lines.append(
            f"{head} {gigabytes} | {'yes' if cell['fits'] else 'no'} | {cell['flops'] / 1e12:.2f} | {cell['bytes_accessed'] / 1e9:.1f} "
            f"| {cell['hbm_bytes'] / 1e9:.1f} | {1e3 * cell['flops'] / hlo_traffic.FLOPS_PER_SECOND:.1f} "
            f"| {1e3 * cell['hbm_bytes'] / hlo_traffic.HBM_BYTES_PER_SECOND:.1f} | {1e3 * cell['estimated_seconds']:.1f} | {said or 'none'} |{tail}"
        )
    return "\n".join(lines)


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells in the JSON file, empty if it is missing; raises UserError if
    this tool did not write it.
    """
    try:
        cells = json.loads(path.read_text())["cells"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a result of this tool ({error!r}): move it away or give another --output"
        ) from error
    return cells


def write_cells(path: Path, cells: list[dict[str, Any]]) -> None:
    """Writes all cells; the old file is kept until the new one is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"cells": cells}, indent=1))
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}): give another --output") from error


def show_traffic(path: Path, depth: int | None, top: int) -> None:
    """Prints which operations move the bytes in a kept HLO text, gzipped or not."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        parts = hlo_traffic.moved(text)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read as a compiled step's text ({error}): give a file that --keep wrote"
        ) from error
    print(f"{path.name}\n\n{hlo_traffic.markdown(hlo_traffic.grouped(parts, depth), top)}\n")
    print(hlo_traffic.markdown(hlo_traffic.grouped_by_kind(parts), top))


def parse_arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", nargs="+", default=TOPOLOGIES, metavar="NAME", help="default: %(default)s")
    parser.add_argument(
        "--batch", nargs="+", type=int, default=BATCHES, metavar="N", help="global batch sizes; default: %(default)s"
    )
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="default: %(default)s")
    parser.add_argument(
        "--label", default="now", help="names the version of the code: cells with another label are compiled again"
    )
    parser.add_argument("--output", type=Path, default=Path("tpu_compile.json"), help="JSON file of the cells")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the compiled text of each cell here, gzipped")
    parser.add_argument(
        "--option", nargs="+", default=[], metavar="NAME=VALUE", help="compiler options, such as xla_tpu_..."
    )
    parser.add_argument(
        "--small", action="store_true", help="a small step that compiles in a minute or two, to test the tool"
    )
    parser.add_argument("--table", action="store_true", help="print the cells in --output and compile nothing")
    parser.add_argument(
        "--traffic",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="print which operations move the bytes, in FILEs that --keep wrote",
    )
    parser.add_argument(
        "--depth", type=int, help="parts of a label in --traffic: 1 is a network, 2 a block; default: all"
    )
    parser.add_argument("--top", type=int, default=25, help="rows of --traffic; default: %(default)s")
    return parser.parse_args()


def main() -> None:
    """Compiles the missing cells, smallest first, and prints the table."""
    arguments = parse_arguments()
    for path in arguments.traffic or []:
        show_traffic(path, arguments.depth, arguments.top)
    if arguments.traffic:
        return
    cells = read_cells(arguments.output)
    if not arguments.table:
        if wrong := [option for option in arguments.option if "=" not in option]:
            raise UserError(f"--option {wrong[0]} has no value: give NAME=VALUE")
        options = dict(option.split("=", 1) for option in arguments.option)
        label = arguments.label + (" (small)" if arguments.small else "")
        wanted = [(label, t, b, p) for b in arguments.batch for p in arguments.precision for t in arguments.topology]
        done = {(cell["label"], cell["topology"], cell["batch"], cell["precision"]) for cell in cells}
        for key in tqdm([key for key in wanted if key not in done], desc="compile", unit="step"):
            _, topology, batch, precision = key
            keep = None
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                keep = arguments.keep / f"{label}-{topology.replace(':', '-')}-{batch}-{precision}.hlo.gz".replace(
                    " ", "-"
                )
            found = measure(lower(taichi(precision, batch, arguments.small), topology), options, keep)
            head = dict(zip(("label", "topology", "batch", "precision"), key, strict=True))
            cells = [*read_cells(arguments.output), {**head, **found}]  # read again: another run may have added some
            write_cells(arguments.output, cells)
            if keep and keep.exists() and arguments.traffic is not None:
                show_traffic(keep, arguments.depth, arguments.top)
    print(table(cells))


if __name__ == "__main__":
    run_main(main)
