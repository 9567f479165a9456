"""Where are metrics and images logged? To the console, log.jsonl, PNG files and TensorBoard."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from maskanim_jax.buckets.local_paths import copy_of
from maskanim_jax.errors import UserError
from maskanim_jax.utils import json_files
from maskanim_jax.utils.atomic_files import atomic_write

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

LOG = "log.jsonl"
PICTURES = "pictures"
TENSORBOARD = "tensorboard"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class MetricWriter:
    """Writes the log of a run. A context manager.

    A run that resumes at `start_step` continues the files; entries of later steps are dropped
    first, so that every step is logged once. With `start_step` 0 the log starts from scratch.
    """

    def __init__(self, workdir: Path, start_step: int = 0) -> None:
        self.workdir = Path(workdir)
        self.start_step = start_step
        self._board_error = "its thread has ended"
        self._copy = copy_of(self.workdir)

    def __enter__(self) -> MetricWriter:
        from tensorboardX import SummaryWriter

        path = self.workdir / LOG
        try:
            (self.workdir / PICTURES).mkdir(parents=True, exist_ok=True)
            for left in (*self.workdir.glob(f".{LOG}.*.part"), *(self.workdir / PICTURES).glob(".*.part")):
                left.unlink()  # of a killed run
            kept = [r for r in read_log(self.workdir) if 0 < self.start_step >= r["step"]]
            with atomic_write(path) as temporary:
                temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
            self._lines = open(path, "a")  # closed by __exit__
            # TensorBoard hides events of older files from this step on.
            purge = self.start_step + 1 if self.start_step else 0
            # Its file names contain the time in seconds: two starts within one second must not collide.
            board, suffix = str(self.workdir / TENSORBOARD), f".{time.time_ns()}"
            self._board = SummaryWriter(board, purge_step=purge, flush_secs=30, filename_suffix=suffix)
        except OSError as error:
            raise UserError(
                f"{self.workdir} can't be written ({error.strerror}): give another --workdir or free it"
            ) from error
        self._hook, threading.excepthook = threading.excepthook, self._thread_failed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as ends:  # in reverse order, even if one fails
            ends.callback(setattr, threading, "excepthook", self._hook)
            ends.enter_context(self._written(LOG) if kind is None else contextlib.suppress(OSError))
            ends.callback(self._lines.close)
            ends.callback(self._let_go_of_board)
            if self._board_writes():
                with self._written(TENSORBOARD) if kind is None else contextlib.suppress(OSError):
                    self._board.close()

    @contextlib.contextmanager
    def _written(self, name: str) -> Iterator[None]:
        """Turns an OSError into a UserError."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.workdir / name} can't be written ({error.strerror or error}): free space or repair the disk, then run the "
                "same command again; the checkpoints are unchanged"
            ) from error

    def _board_writes(self) -> bool:
        """Whether TensorBoard's thread is alive: without it, a full queue would block forever."""
        worker = getattr(getattr(self._board.file_writer, "event_writer", None), "_worker", None)
        return worker is None or worker.is_alive()

    def _let_go_of_board(self) -> None:
        """After a failure, prevents the process's exit from blocking on a
        queue that nobody reads.
        """
        events = getattr(self._board.file_writer, "event_writer", None)
        if events is not None and not getattr(events, "_closed", True):
            events._closed = True
            if queue := getattr(events, "_event_queue", None):
                queue.cancel_join_thread()

    def _on_board(self) -> SummaryWriter:
        if not self._board_writes():
            raise UserError(
                f"{self.workdir / TENSORBOARD} can't be written ({self._board_error}): free space or repair the disk, then run the "
                "same command again; the checkpoints are unchanged"
            )
        return self._board

    def _thread_failed(self, told: threading.ExceptHookArgs) -> None:
        if type(told.thread).__name__ == "_EventLoggerThread" and isinstance(told.exc_value, OSError):
            self._board_error = told.exc_value.strerror or str(told.exc_value)  # reported by the next write
        else:
            self._hook(told)

    def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Logs numbers; non-finite ones are `null` in log.jsonl, since JSON cannot express them."""
        numbers = {name: float(value) for name, value in values.items()}
        self._line(step, {n: v if math.isfinite(v) else None for n, v in numbers.items()})
        for name, value in numbers.items():
            self._on_board().add_scalar(name, value, step)
        _say(f"step {step:>7}  " + "  ".join(f"{name} {value:<9.4g}" for name, value in numbers.items()).rstrip())
        if self._copy is not None:
            self._copy.push_soon()

    def pictures(self, step: int, named: Mapping[str, np.ndarray]) -> None:
        """Writes (H, W, 3) uint8 RGB pictures as `pictures/<name>_<step>.png`.

        Raises ValueError for another shape or dtype, or for a name that can't be a file's.
        """
        from PIL import Image

        for name, picture in named.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} can't be a picture's name: letters, digits, _ . - only")
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise ValueError(f"picture {name} is {picture.dtype} {picture.shape}, not uint8 (H, W, 3)")
            with (
                self._written(f"{PICTURES}/{name}_{step:07d}.png"),
                atomic_write(self.workdir / PICTURES / f"{name}_{step:07d}.png") as temporary,
            ):
                Image.fromarray(picture).save(temporary, format="PNG")
            self._on_board().add_image(name, picture, step, dataformats="HWC")

    def text(self, step: int, message: str) -> None:
        """Logs a message, as `text` in log.jsonl."""
        if self._copy is not None:
            message = self._copy.in_words(message)
        self._line(step, {"text": message})
        self._on_board().add_text("log", message, step)
        _say(f"step {step:>7}  {message}")

    def _line(self, step: int, record: Mapping[str, Any]) -> None:
        with self._written(LOG):
            self._lines.write(json.dumps({"step": int(step), "time": round(time.time(), 3), **record}) + "\n")
            self._lines.flush()  # a killed run keeps its log

    def sync(self) -> None:
        """Syncs the log to disk; called before each checkpoint, so that no logged step is lost."""
        with self._written(LOG):
            os.fsync(self._lines.fileno())


def read_log(workdir: Path) -> list[dict[str, Any]]:
    """The records of `workdir/log.jsonl`, oldest first: `step`, `time`
    (seconds since 1970), and the logged values.

    Empty without a log. An incomplete last line (of a killed run) is ignored; another
    bad line raises UserError.
    """
    path = Path(workdir) / LOG
    if not path.exists():
        return []
    records: list[dict[str, Any]] = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json_files.loads(line) if line.strip() else None
        except ValueError:
            record = line  # not an object: handled below
        if isinstance(record, dict) and type(record.get("step")) is int:
            records.append(record)
        elif record is not None and number < len(lines):
            raise UserError(f"line {number} of {path} is not a record of the log: delete that line")
    return records


def _say(line: str) -> None:
    from maskanim_jax.utils.progress import ProgressBar

    ProgressBar.write(line)  # does not break a progress bar
