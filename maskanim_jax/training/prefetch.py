"""How does the next batch reach the devices while a step runs?

A thread places it there, a few batches ahead.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

Read = TypeVar("Read")
Placed = TypeVar("Placed")


def prefetch(batches: Iterator[Read], place: Callable[[Read], Placed], depth: int) -> Generator[Placed]:
    """Yields `place(batch)` of each batch in order. One thread prepares `depth`
    batches ahead; 0: no thread.

    An error of the reader is raised in place of the failed batch, not earlier. Close the generator
    before `batches`, which ends the thread.
    """
    if depth < 1:
        for batch in batches:
            yield place(batch)
        return
    ready: queue.Queue[tuple[Placed | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def work() -> None:
        try:
            for batch in batches:
                ready.put((place(batch), None))
                if stopped.is_set():
                    return
            ready.put((None, StopIteration()))
        except BaseException as error:  # raised in the training loop
            ready.put((None, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            placed, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield placed  # type: ignore[misc]  # None only occurs with an error
    finally:
        stopped.set()
        while thread.is_alive():  # unblock a thread that waits for space
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.01)
