"""Which files does an export contain?

Functions, weights, metadata and a README, written atomically.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskanim_jax.errors import UserError, check_at_least
from maskanim_jax.utils.atomic_files import sha256_of
from maskanim_jax.utils.paths import hidden_beside

if TYPE_CHECKING:
    from maskanim_jax.checkpoints.run import LoadedRun


PLATFORMS = "cpu,cuda,tpu"

FORMATS = ("jax", "onnx")

RUNNER = "run_exported.py"

README = """# An exported animation

{system}, step {step}, frames of {size} x {size}, options {options}. The project that made it is not needed.

```python
# {install}
import numpy as np
from run_exported import load

animation = load(".")                     # this folder; weights are checked against export.json
source = np.load("source.npy")            # ({size}, {size}, 3) uint8, RGB
driving = np.load("driving.npy")          # (N, {size}, {size}, 3) uint8, or any iterable of frames, such as a camera
frames = list(animation(source, driving)) # ({size}, {size}, 3) uint8 each
```

Or `python run_exported.py source.png driving_frames/ result_frames/` (with Pillow). Sources and drivers are cropped square, as the training data was.

{details}"""

JAX_DETAILS = """Without `run_exported.py`, in plain JAX (float32 in [0, 1]):

```python
import numpy as np
from jax import export

begin, animate = (export.deserialize(bytearray(open(f"{{n}}.jax_export", "rb").read())) for n in ("begin", "animate"))
weights = dict(np.load("weights.npz"))
source_state = begin.call(weights, source[None] / np.float32(255), driving[:1] / np.float32(255))
frames = animate.call(weights, source_state, driving[:8] / np.float32(255))["{result}"]
```

Lowered for {platforms}; {batch}. Written by jax {jax}, calling convention {calling_convention}. JAX guarantees that releases up to six
months newer and three weeks older than the one that wrote these files can run them; after that, export again from the checkpoint.
"""

ONNX_DETAILS = """`begin.onnx` takes `source` and `first`, the first driving frame, (1, {size}, {size}, 3) float32 in [0, 1].
`animate.onnx` takes the outputs of `begin.onnx` (without "_out") and `driving`, ({batch}, {size}, {size}, 3). Written by {converter}.
"""


def export(
    run: LoadedRun,
    output: Path,
    options: Any,
    *,
    format: str = "jax",
    platforms: Sequence[str] = tuple(PLATFORMS.split(",")),
    batch: int | None = None,
    pictures: bool = False,
) -> dict[str, Any]:
    """Writes the folder `output` atomically and returns its metadata, which is also in export.json.

    Before the folder is renamed into place, its files are run and three frames are compared
    with the project's frames (`compared` in the metadata). `options` is the result of
    `system.animation_options`. With `batch` None, any number of frames is allowed if
    possible. Raises UserError.
    """
    check_export(output, format, platforms, batch)
    if getattr(options, "smooth", 0):
        raise UserError("--smooth keeps state between batches, which an exported function cannot do: omit it")
    from maskanim_jax.exporting import functions, jax_files, onnx_files, verification
    from maskanim_jax.nn.kernels.native.build import disable_native

    system = run.system
    names = system.output_names if pictures else (system.result,)
    (jax_files if format == "jax" else onnx_files).check_ready()
    with disable_native():
        made = functions.functions_of(system, run.variables, options, names)
    folder = _temporary_folder(output)
    try:
        with disable_native():
            if format == "jax":
                about = jax_files.write_jax(folder, made, system.frame_size, platforms, batch)
            else:
                about = onnx_files.write_onnx(folder, made, system.frame_size, batch or 1)
        info = _metadata(run, options, format, names, about, folder)
        # The files are run before the folder is visible; verification needs runner and metadata.
        _write_metadata(folder, info)
        shutil.copy(Path(functions.__file__).with_name(RUNNER), folder / RUNNER)
        (folder / "README.md").write_text(_readme(info))
        with disable_native():
            info["compared"] = verification.verify(folder, run, options)
        _write_metadata(folder, info)
        folder.chmod(0o755)
        os.rename(folder, output)
    except OSError as error:
        raise UserError(f"{output} can't be written ({error.strerror}): free space or give another --output") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return info


def _temporary_folder(output: Path) -> Path:
    """Creates a hidden folder beside `output`. Raises UserError."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = hidden_beside(output, uuid.uuid4().hex[:12])
        folder.mkdir()
    except OSError as error:
        raise UserError(f"{output} can't be written ({error.strerror}): give another --output or free it") from error
    return folder


def _metadata(
    run: LoadedRun, options: Any, format: str, names: Sequence[str], about: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """The content of export.json. `about` is the metadata of the format's writer; all files in
    `folder` are hashed.
    """
    import jax

    return {
        "format": format,
        "system": run.system.name,
        "config": run.config.name,
        "step": run.step,
        "options": {name: str(value) for name, value in sorted(vars(options).items())},
        "frame_size": run.system.frame_size,
        "result": run.system.result,
        "pictures": list(names),
        "jax": jax.__version__,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **about,
        "files": {path.name: sha256_of(path) for path in sorted(folder.iterdir())},
    }


def _write_metadata(folder: Path, info: dict[str, Any]) -> None:
    (folder / "export.json").write_text(json.dumps(info, indent=2) + "\n")


def check_export(output: Path, format: str, platforms: Sequence[str], batch: int | None) -> None:
    if output.exists() or output.is_symlink():
        raise UserError(f"{output} already exists: give a new folder, or move it away")
    known = ("cpu", "cuda", "tpu", "rocm")
    for platform in platforms:
        if platform not in known:
            raise UserError(f"--platforms has an unknown platform {platform!r}: choose from {', '.join(known)}")
    if not platforms or len(set(platforms)) < len(platforms):
        raise UserError(f"--platforms={','.join(platforms)} must name each platform once, such as {PLATFORMS}")
    check_at_least("--batch", batch)


def _readme(info: dict[str, Any]) -> str:
    """The text of the folder's README."""
    size, batch = info["frame_size"], info["batch"]
    if info["format"] == "jax":
        install = "pip install jax flatbuffers   (jax[cuda12] or jax[tpu] for an accelerator)"
        details = JAX_DETAILS.format(
            result=info["result"],
            platforms=", ".join(info["platforms"]),
            batch="any number of frames per call" if batch is None else f"{batch} frames per call",
            jax=info["jax"],
            calling_convention=info["calling_convention"],
        )
    else:
        install = "pip install numpy onnxruntime"
        details = ONNX_DETAILS.format(size=size, batch=batch, converter=info["converter"])
    options = ", ".join(f"{name} {value}" for name, value in info["options"].items())
    return README.format(
        system=info["system"], step=info["step"], size=size, options=options, install=install, details=details
    )
