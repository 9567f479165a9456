"""What happens on SIGTERM (preemption) or Ctrl-C? The run finishes the step,
saves, logs it and exits.

The exit status is 75 after SIGTERM (EX_TEMPFAIL of sysexits.h: "restart me") and 130 after SIGINT,
as in shells. A second signal ends the process at once. Before the first step is done there is
nothing to save, so the first signal ends the process at once, even during compilation.
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
    """Tells whether this run was asked to stop. A context manager; outside the
    main thread it does nothing.

    With several processes, JAX's preemption service announces the SIGTERM of one of them to all,
    and the step at which all stop.
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
            os.close(self._write)  # ends the thread

    def _note(self, number: int, _: FrameType | None) -> None:
        self._number = signal.Signals(number)
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)  # the next signal ends the process
        if self._distributed:
            os.kill(os.getpid(), signal.SIGTERM)  # handled by JAX, which tells the others

    def _watch(self) -> None:
        """Python's handler waits for the main thread, which may be compiling; this
        thread sees a signal at once.
        """
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
        """Call after the first step: from now on there is something to save."""
        self._nothing_to_save = False

    def should_stop(self, step: int) -> bool:
        """Whether to stop after this step; all processes must call it at every step
        and get the same answer.
        """
        if self._distributed:
            from jax.experimental import multihost_utils

            reached = multihost_utils.reached_preemption_sync_point(step)
            if reached:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return reached
        return self._number is not None

    def message(self, step: int) -> str:
        """A message for the log."""
        name = self._number.name if self._number is not None else "SIGTERM to one of the processes"
        return f"stopped by {name} after step {step}, which is saved: repeat the command to resume"

    def exit(self) -> NoReturn:
        """Ends the command with SystemExit(75) or KeyboardInterrupt."""
        if self._number is signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(RESTART)


def _preemption_service() -> bool:
    """Whether JAX runs with several processes and handles SIGTERM itself."""
    import jax
    from jax._src import distributed

    return jax.process_count() > 1 and distributed.global_state.preemption_sync_manager is not None
