"""What does a training do when it is told to end? SIGTERM (preemption) and SIGINT (Ctrl-C): finish the step, save, say so, exit.

The exit status after SIGTERM is 75 (EX_TEMPFAIL of sysexits.h): "restart me", nothing is wrong. After SIGINT it is 130, as shells have it.
A second signal ends the process at once. Before the first step of a start is done there is nothing to save, and the first signal
ends it at once as well, however long the compiler would go on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from maskanim_jax.errors import RESTART

INTERRUPTED = 130
_STATUS = {signal.SIGTERM: RESTART, signal.SIGINT: INTERRUPTED}


class PreemptionHandler:
    """Whether somebody asked this training, or another process of it, to end. Use it with `with`; in another thread than the main one it
    does nothing, since Python takes signals there only.

    With several processes JAX's preemption service tells all of them of one's SIGTERM, and at which step all stop.
    """

    def __init__(self) -> None:
        self._number: signal.Signals | None = None
        self._nothing_to_save = True
        self._before: dict[signal.Signals, Any] = {}
        self._distributed = False

    def __enter__(self) -> PreemptionHandler:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._distributed = _preemption_service()
        for number in (signal.SIGINT,) if self._distributed else tuple(_STATUS):
            self._before[number] = signal.signal(number, self._note)
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            os.close(self._write)  # the thread reads the end and goes

    def _note(self, number: int, _: FrameType | None) -> None:
        self._number = signal.Signals(number)
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)  # the next one ends the process
        if self._distributed:
            os.kill(os.getpid(), signal.SIGTERM)  # which JAX has taken, to tell the others

    def _watch(self) -> None:
        """The handler runs only when the main thread is back from what it does; this thread learns of a signal at once."""
        with open(self._read, "rb", buffering=0) as pipe:
            while byte := pipe.read(1):
                status = {int(number): status for number, status in _STATUS.items()}.get(byte[0])
                if status is not None and self._nothing_to_save and not self._distributed:
                    name = signal.Signals(byte[0]).name
                    print(
                        f"stopped by {name} before the first step was done: there is nothing to save", file=sys.stderr
                    )
                    sys.stderr.flush()
                    os._exit(status)

    def mark_resumable(self) -> None:
        """From now on there is something to save."""
        self._nothing_to_save = False

    def should_stop(self, step: int) -> bool:
        """Whether to stop after this step; all processes must ask at every step, and all get the same answer."""
        if self._distributed:
            from jax.experimental import multihost_utils

            reached = multihost_utils.reached_preemption_sync_point(step)
            if reached:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return reached
        return self._number is not None

    def message(self, step: int) -> str:
        """For the log."""
        name = self._number.name if self._number is not None else "SIGTERM to one of the processes"
        return f"stopped by {name} after step {step}, which is saved: the same command goes on from there"

    def exit(self) -> NoReturn:
        """Ends the command: SystemExit(75), or KeyboardInterrupt."""
        if self._number is signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(RESTART)


def _preemption_service() -> bool:
    """Whether JAX runs with several processes and has taken SIGTERM for itself."""
    import jax
    from jax._src import distributed

    return jax.process_count() > 1 and distributed.global_state.preemption_sync_manager is not None
