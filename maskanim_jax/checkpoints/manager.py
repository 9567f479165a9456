"""How are checkpoints written so that only complete, verified ones are visible?

Orbax writes `checkpoints/STEP.part` in the background. Its files are then synced, hashed
into `SHA256SUMS`, read back and compared with the arrays in memory. Only then is the
folder renamed to `STEP`, and only then are older checkpoints deleted. The next start
removes what a killed process left.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from maskanim_jax.buckets.local_paths import remote_checkpoints
from maskanim_jax.checkpoints.items import compare, items, lone_saver, read_back, read_info, reason, restored, to_host
from maskanim_jax.distributed.sharding import replicated_sharding
from maskanim_jax.errors import UserError
from maskanim_jax.systems.interface import Variables
from maskanim_jax.systems.train_state import TrainState
from maskanim_jax.utils.checksums import SUMS, CorruptFileError, check_sums, sync, write_sums

FOLDER = "checkpoints"
SET_ASIDE = "set_aside"
"""Folder in the workdir for archived checkpoints: the ones later than `--restore_step`."""
PART, OLD, ORBAX_PART = ".part", ".old", ".orbax-checkpoint-tmp"
METRICS = "metrics/metrics"
EMA = "ema"
"""Key in a checkpoint's `info` for the decay of the averaged weights; absent without averaging."""


class CheckpointManager:
    """The checkpoints of one workdir: the newest `keep` and the best by
    held-out L1. A context manager.

    Unless read-only it locks the folder, so that two runs cannot write to one workdir. Raises
    UserError when the folder can't be used.
    """

    def __init__(self, workdir: Path, keep: int = 2, read_only: bool = False) -> None:
        self.workdir, self.folder = workdir, (workdir / FOLDER).absolute()
        self.unchecked: str | None = None
        """A log message if the restored checkpoint has no checksums."""
        self.failed = False
        """Whether a background save failed, so that `wait_until_finished` would raise."""
        self._keep, self._leader = keep, jax.process_index() == 0
        self._failure: UserError | None = None
        self._finisher: threading.Thread | None = None
        self._checked: set[int] = set()
        self._saver: ocp.AsyncCheckpointer | None = None
        self._remote = remote_checkpoints(workdir)
        # Without a shared folder, process 0 alone writes the arrays, which are replicated.
        self._alone = self._remote is not None and jax.process_count() > 1
        if not read_only:
            self._claim()
            self._taken = set(self.all_steps())
            self._saver = ocp.AsyncCheckpointer(items()) if not self._alone else lone_saver() if self._leader else None

    def _claim(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._there = _identity(self.folder)
            if self._leader:
                self._lock = _locked(self.folder / ".lock", self.workdir)
                for path in self.folder.iterdir():
                    if path.name.endswith((PART, OLD)) or ORBAX_PART in path.name:
                        shutil.rmtree(path)
                if self._remote is not None:
                    self._remote.sweep()
        except OSError as error:
            why = error.strerror or error
            raise UserError(f"{self.folder} can't be written ({why}): free it or give another --workdir") from error

    def __enter__(self) -> CheckpointManager:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._saver is None:
            return
        try:
            with contextlib.suppress(UserError) if kind else contextlib.nullcontext():
                self.wait_until_finished()
        finally:
            with contextlib.suppress(Exception):  # an error of the last save was already raised
                self._saver.close()
            if self._leader and self._lock is not None:
                os.close(self._lock)

    def all_steps(self) -> list[int]:
        """Steps of all complete checkpoints, in order."""
        try:
            names = [path.name for path in self.folder.iterdir() if path.is_dir()]
        except (FileNotFoundError, NotADirectoryError):  # the process that writes there reports the error
            return []
        except OSError as error:
            raise UserError(f"{self.folder} can't be read ({error.strerror}): check the disk") from error
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint."""
        return max(self.all_steps(), default=None)

    def best_step(self) -> int | None:
        """The step with the lowest held-out L1 (the newer on a tie); the
        newest if none was evaluated.
        """
        l1, step = self.lowest_l1()
        return step if l1 < math.inf else self.latest_step()

    def lowest_l1(self) -> tuple[float, int]:
        """The lowest held-out L1 of the checkpoints and its step; infinity and
        the newest step (or 0) if none was evaluated.
        """
        l1, step = min(((self._l1(step), -step) for step in self.all_steps()), default=(math.inf, 0))
        return l1, -step

    def _l1(self, step: int) -> float:
        path = self.folder / str(step)
        try:
            check_sums(path, METRICS)
            return float(json.loads((path / METRICS).read_text())["l1"])
        except FileNotFoundError:
            return math.inf  # not evaluated
        except CorruptFileError as error:
            raise UserError(f"{path} can't be used: {error}; {self.recovery_hint(step)}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path / METRICS} can't be read ({error}), so the best checkpoint is not known; {self.recovery_hint(step)}"
            ) from error

    def save(self, state: TrainState, info: Mapping[str, Any], l1: float) -> None:
        """Saves in the background; raises UserError when this or the previous save failed."""
        step = int(state.step)
        if step in self._taken or (self._alone and not self._leader):
            return
        assert self._saver is not None
        self.wait_until_finished()
        self._taken.add(step)
        copy = jax.tree.map(to_host, state.saved()) if self._leader else None
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(copy if self._alone else state.saved()),
            info=ocp.args.JsonSave({**info, "sums": True}),
            metrics=ocp.args.JsonSave({"l1": l1}),
        )
        try:
            self._same_folder()
            self._saver.save(self.folder / f"{step}{PART}", args=args)
        except Exception as error:
            raise self._unwritten(step, error) from error
        self._finisher = threading.Thread(target=self._finish, args=(step, copy), name="checkpoint", daemon=True)
        self._finisher.start()

    def _same_folder(self) -> None:
        """Raises OSError if the folder was replaced: an unmounted disk leaves
        an empty folder, or none.
        """
        if not self.folder.is_dir() or _identity(self.folder) != self._there:
            raise OSError(0, "the folder has disappeared since the run started")

    def _finish(self, step: int, copy: Any) -> None:
        """Runs in a thread: waits for Orbax, verifies, renames, deletes old checkpoints."""
        assert self._saver is not None
        part = self.folder / f"{step}{PART}"
        try:
            self._saver.wait_until_finished()
            if not self._leader:
                return
            self._same_folder()
            write_sums(part)
            compare(copy, read_back(part, copy))
            check_sums(part)
            part.rename(self.folder / str(step))
            sync(self.folder)
            if self._remote is not None:
                self._remote.publish(step)
        except BaseException as error:  # raised in the training loop by wait_until_finished
            self._failure = self._unwritten(step, error)
            self.failed = True
            return
        try:
            self._prune()
        except UserError as error:
            self._failure, self.failed = error, True
        except OSError as error:
            self._failure = UserError(
                f"{self.folder}: older checkpoints can't be removed ({error}), but the one of step {step} is complete: remove them and start again"
            )
            self.failed = True

    def _unwritten(self, step: int, error: BaseException) -> UserError:
        for path in self.folder.glob(f"{step}{PART}*"):  # frees space that the run may need
            shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, UserError) and not isinstance(error, CorruptFileError):
            return error
        why = (error.strerror if isinstance(error, OSError) else None) or reason(error)
        with contextlib.suppress(UserError):
            steps = [each for each in self.all_steps() if each < step]
            left = f"the checkpoint of step {steps[-1]} is unchanged" if steps else "there is no earlier checkpoint"
            return UserError(
                f"{self.folder / str(step)} can't be written ({why}) and {left}: free space or repair the disk, then run the same command again"
            )
        return UserError(f"{self.folder / str(step)} can't be written ({why}): repair the disk, then start again")

    def _prune(self) -> None:
        steps = self.all_steps()
        measured: list[tuple[float, int]] = []
        kept = set(steps[-self._keep :])
        for step in steps:
            try:
                measured.append((self._l1(step), -step))
            except UserError:  # damaged checkpoints are kept for the user
                kept.add(step)
        kept.add(-min(measured)[1])
        for step in steps:
            if step not in kept:
                old = self.folder / f"{step}{OLD}"
                (self.folder / str(step)).rename(old)  # never visible while incomplete
                shutil.rmtree(old)
                if self._remote is not None:
                    self._remote.drop(step)

    def wait_until_finished(self) -> None:
        """Waits until everything is written and verified; raises UserError,
        once, when a save failed.
        """
        if self._finisher is not None:
            self._finisher.join()
            self._finisher = None
        failure, self._failure, self.failed = self._failure, None, False
        if failure is not None:
            raise failure

    def archive_after(self, after: int) -> list[str]:
        """Moves checkpoints later than step `after` to the workdir's
        `set_aside/`; returns log messages.
        """
        done = []
        taken = self._remote.set_aside_names() if self._remote is not None and self._leader else set()
        for step in [each for each in self.all_steps() if each > after] if self._leader else []:
            number = 0
            while (target := self.workdir / SET_ASIDE / (f"{step}.{number}" if number else str(step))).exists() or (
                target.name in taken
            ):
                number += 1
            if self._remote is not None:
                self._remote.move_aside(step, target.name)
            try:
                target.parent.mkdir(exist_ok=True)
                (self.folder / str(step)).rename(target)
            except OSError as error:
                raise UserError(
                    f"{self.folder / str(step)} can't be moved to {target} ({error.strerror}): free it"
                ) from error
            done.append(f"the checkpoint of step {step} was moved to {target}")
        self._taken = {step for step in self._taken if step <= after}
        return done

    def check(self, step: int) -> None:
        """Raises UserError, with a recovery hint, when a file of the step
        differs from what was saved.
        """
        if step in self._checked:
            return
        if self._remote is not None:
            self._remote.fetch(step)
        path = self.folder / str(step)
        try:
            if not check_sums(path):
                with _readable(self, step):
                    promised = read_info(path).get("sums")
                if promised:
                    raise CorruptFileError(f"{path / SUMS} is missing")
                self.unchecked = f"{path} has no {SUMS}, as in older versions: its files were not verified"
        except CorruptFileError as error:
            raise UserError(f"{path} can't be restored: {error}; {self.recovery_hint(step)}") from error
        self._checked.add(step)

    def recovery_hint(self, step: int) -> str:
        """A clause that says how to continue without the checkpoint of `step`."""
        for other in reversed([each for each in self.all_steps() if each < step]):
            with contextlib.suppress(CorruptFileError):
                if self._remote is not None:
                    self._remote.fetch(other)
                check_sums(self.folder / str(other))
                return (
                    f"the newest intact checkpoint before it is {self.folder / str(other)}: "
                    f"`python -m maskanim_jax.main --workdir={shlex.quote(str(self.workdir))} --restore_step={other}` resumes from there"
                )
        return (
            "there is no intact checkpoint before it: restore it from a copy, or start a new run in another --workdir"
        )

    def info(self, step: int) -> dict[str, Any]:
        """The metadata saved with the state."""
        self.check(step)
        with _readable(self, step):
            return read_info(self.folder / str(step))

    def restore(self, step: int, abstract_state: TrainState, mesh: Mesh) -> TrainState:
        """The state of a step, on every device; `abstract_state` gives names and shapes."""
        self.check(step)
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated_sharding(mesh)),
            abstract_state.saved(),
        )
        with _readable(self, step):
            found = restored(self.folder / str(step), state=ocp.args.StandardRestore(wanted))["state"]
            return TrainState(**found)

    def restore_variables(self, step: int, abstract_state: Variables) -> Variables:
        """Restores only parameters and statistics, on one device, for animation; the
        averaged ones if there are any.
        """
        averaged = bool(self.info(step).get(EMA))
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), abstract_state._asdict()
        )
        wanted = {"ema": wanted} if averaged else wanted
        restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
        with _readable(self, step):
            args = ocp.args.PyTreeRestore(item=wanted, restore_args=restore_args, partial_restore=True)
            found = restored(self.folder / str(step), state=args)["state"]
            return Variables(**(found["ema"] if averaged else found))


@contextlib.contextmanager
def _readable(checkpoints: CheckpointManager, step: int) -> Iterator[None]:
    """Turns Orbax's errors for a damaged or foreign checkpoint into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{checkpoints.folder / str(step)} can't be restored ({reason(error)}): it is damaged or belongs to another config; "
            f"{checkpoints.recovery_hint(step)}"
        ) from error


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _locked(path: Path, workdir: Path) -> int | None:
    """Locks the file; returns a descriptor to close, or None if the file system has no locks.

    Ends with the process.
    """
    try:
        import fcntl
    except ImportError:
        return None
    number = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(number)
        raise UserError(
            f"{workdir} is in use: another process trains there; wait for its end or give another --workdir"
        ) from error
    except OSError:
        pass  # some network file systems have no locks
    return number
