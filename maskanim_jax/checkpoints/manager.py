"""How does a checkpoint become visible only when it is whole, and stay so?

Orbax writes `checkpoints/STEP.part` in the background. Then its files are put on the disk, hashed into `SHA256SUMS`, read back, and compared
with the arrays in memory; only then the folder is called `STEP`, and only then older ones go. What a killed process left is swept by the next.
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
"""Folder of the workdir for checkpoints that a run went back behind."""
PART, OLD, ORBAX_PART = ".part", ".old", ".orbax-checkpoint-tmp"
METRICS = "metrics/metrics"
EMA = "ema"
"""In a checkpoint's `info`: the decay of the averages that its state has; missing when there are none."""


class CheckpointManager:
    """The checkpoints of one workdir: the last `keep` and the best by held-out L1. Use it with `with`.

    Writing, it holds the folder's lock: two trainings in one workdir would spoil each other. Raises UserError where the folder can't be
    used.
    """

    def __init__(self, workdir: Path, keep: int = 2, read_only: bool = False) -> None:
        self.workdir, self.folder = workdir, (workdir / FOLDER).absolute()
        self.unchecked: str | None = None
        """A sentence for the log when what was restored has no checksums."""
        self.failed = False
        """Whether `wait` would raise: a save in the background went wrong."""
        self._keep, self._leader = keep, jax.process_index() == 0
        self._failure: UserError | None = None
        self._finisher: threading.Thread | None = None
        self._checked: set[int] = set()
        self._saver: ocp.AsyncCheckpointer | None = None
        self._remote = remote_checkpoints(workdir)
        # Without a shared folder process 0 writes the arrays alone: all of them are replicated.
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
            with contextlib.suppress(Exception):  # what went wrong with the last save was said
                self._saver.close()
            if self._leader and self._lock is not None:
                os.close(self._lock)

    def all_steps(self) -> list[int]:
        """Steps of all whole checkpoints, in order."""
        try:
            names = [path.name for path in self.folder.iterdir() if path.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.folder} can't be read ({error.strerror}): check its disk") from error
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint."""
        return max(self.all_steps(), default=None)

    def best_step(self) -> int | None:
        """The step with the lowest held-out L1 (the newer of two), the newest when none was measured."""
        measured = [(self._l1(step), -step) for step in self.all_steps()]
        l1, step = min(measured, default=(math.inf, 0))
        return -step if l1 < math.inf else self.latest_step()

    def _l1(self, step: int) -> float:
        path = self.folder / str(step)
        try:
            check_sums(path, METRICS)
            return float(json.loads((path / METRICS).read_text())["l1"])
        except FileNotFoundError:
            return math.inf  # nobody measured it
        except CorruptFileError as error:
            raise UserError(f"{path} can't be used: {error}; {self.recovery_hint(step)}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path / METRICS} can't be read ({error}), so the best checkpoint is not known; {self.recovery_hint(step)}"
            ) from error

    def save(self, state: TrainState, info: Mapping[str, Any], l1: float) -> None:
        """Writes in the background; raises UserError when this or the save before it went wrong."""
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
        """A disk that was unmounted leaves an empty folder, or none: the checkpoints before are not there, and nothing goes there."""
        if not self.folder.is_dir() or _identity(self.folder) != self._there:
            raise OSError(0, "the folder is gone since the run began")

    def _finish(self, step: int, copy: Any) -> None:
        """In a thread: waits for Orbax, verifies, makes visible, prunes."""
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
        except BaseException as error:  # whatever it is, it is the loop's to see
            self._failure = self._unwritten(step, error)
            self.failed = True
            return
        try:
            self._prune()
        except UserError as error:
            self._failure, self.failed = error, True
        except OSError as error:
            self._failure = UserError(
                f"{self.folder}: older checkpoints can't be removed ({error}): the one of step {step} is whole; remove them and start again"
            )
            self.failed = True

    def _unwritten(self, step: int, error: BaseException) -> UserError:
        for path in self.folder.glob(f"{step}{PART}*"):  # it takes room that the rest of the run may need
            shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, UserError) and not isinstance(error, CorruptFileError):
            return error
        why = (error.strerror if isinstance(error, OSError) else None) or reason(error)
        with contextlib.suppress(UserError):
            steps = [each for each in self.all_steps() if each < step]
            left = f"the checkpoint of step {steps[-1]} is as it was" if steps else "there is no earlier checkpoint"
            return UserError(
                f"{self.folder / str(step)} can't be written ({why}) and {left}: free space or mend the disk, then start the same command again"
            )
        return UserError(f"{self.folder / str(step)} can't be written ({why}): mend the disk, then start again")

    def _prune(self) -> None:
        steps = self.all_steps()
        measured: list[tuple[float, int]] = []
        kept = set(steps[-self._keep :])
        for step in steps:
            try:
                measured.append((self._l1(step), -step))
            except UserError:  # a damaged one is the user's to look at
                kept.add(step)
        kept.add(-min(measured)[1])
        for step in steps:
            if step not in kept:
                old = self.folder / f"{step}{OLD}"
                (self.folder / str(step)).rename(old)  # never visible with half of its files
                shutil.rmtree(old)
                if self._remote is not None:
                    self._remote.drop(step)

    def wait_until_finished(self) -> None:
        """Until everything is on the disk and verified; raises UserError when a save went wrong, once."""
        if self._finisher is not None:
            self._finisher.join()
            self._finisher = None
        failure, self._failure, self.failed = self._failure, None, False
        if failure is not None:
            raise failure

    def archive_after(self, after: int) -> list[str]:
        """Moves checkpoints later than step `after` into the workdir's `set_aside/`; returns what was done, a sentence each."""
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
        """Raises UserError, with what to do instead, when a file of the step is not what was saved."""
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
                self.unchecked = f"{path} has no {SUMS}, as those of older versions: its files were not checked"
        except CorruptFileError as error:
            raise UserError(f"{path} can't be restored: {error}; {self.recovery_hint(step)}") from error
        self._checked.add(step)

    def recovery_hint(self, step: int) -> str:
        """What to do without the checkpoint of `step`, as a clause."""
        for other in reversed([each for each in self.all_steps() if each < step]):
            with contextlib.suppress(CorruptFileError):
                if self._remote is not None:
                    self._remote.fetch(other)
                check_sums(self.folder / str(other))
                return (
                    f"the newest whole one before it is {self.folder / str(other)}: "
                    f"`python -m maskanim_jax.main --workdir={shlex.quote(str(self.workdir))} --restore_step={other}` trains on from there"
                )
        return "no whole one is before it: restore it from a copy, or train anew in another --workdir"

    def info(self, step: int) -> dict[str, Any]:
        """What was saved beside the state."""
        self.check(step)
        with _readable(self, step):
            return read_info(self.folder / str(step))

    def restore(self, step: int, abstract_state: TrainState, mesh: Mesh) -> TrainState:
        """The state of a step, on every device; `like` gives names and shapes."""
        self.check(step)
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated_sharding(mesh)),
            abstract_state.saved(),
        )
        with _readable(self, step):
            found = restored(self.folder / str(step), state=ocp.args.StandardRestore(wanted))["state"]
            return TrainState(**found)

    def restore_variables(self, step: int, abstract_state: Variables) -> Variables:
        """Parameters and statistics alone, on one device: what animation needs. Those of a run with averages are the averages."""
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
    """Turns what Orbax raises for a damaged or foreign checkpoint into a sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{checkpoints.folder / str(step)} can't be restored ({reason(error)}): it is damaged or of another config; "
            f"{checkpoints.recovery_hint(step)}"
        ) from error


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _locked(path: Path, workdir: Path) -> int | None:
    """A number to close when done; the lock ends with the process, however that ends. None where the file system has no locks."""
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
        pass  # some network file systems have none
    return number
