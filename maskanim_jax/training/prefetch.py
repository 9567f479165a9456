"""How does the next batch reach the devices while the step runs? A thread puts it there, a few batches ahead."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

Read = TypeVar("Read")
Placed = TypeVar("Placed")


def prefetch(batches: Iterator[Read], place: Callable[[Read], Placed], depth: int) -> Generator[Placed]:
    """`place(batch)` of each batch, in order, `depth` of them made ahead by one thread; 0 makes them when they are asked for.

    What the reader raises is raised in the turn of the batch that it failed at, not earlier. Close the generator before `batches`: that
    ends the thread.
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
        except BaseException as error:  # whatever it is, it is the loop's to see
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
            yield placed  # type: ignore[misc]  # None stands beside an error only
    finally:
        stopped.set()
        while thread.is_alive():  # a thread that waits for room gets it
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.01)
