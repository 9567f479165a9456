"""Processes that need not import the package: they are forked from one that has, which saves most of their time."""

import atexit
import multiprocessing
import os
import signal
import sys
import tempfile

forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(["maskanim_jax.training.loop", "maskanim_jax.main", "orbax.checkpoint", "grain"])


def _child(main, argv, environment, said):
    """Becomes `main` with these arguments and variables; stderr goes to the file `said`."""
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in ((1, os.devnull), (2, said)):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, stream)
        os.close(opened)
    sys.argv = ["forked", *argv]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends its processes without


class Forked:
    """`main()` in a process of its own, with as much of `subprocess.Popen` as the tests need."""

    def __init__(self, main, argv, environment):
        self._said = tempfile.NamedTemporaryFile(prefix="forked-", mode="r", errors="replace")  # noqa: SIM115
        self._process = forkserver.Process(target=_child, args=(main, argv, environment, self._said.name))
        self._process.start()

    @property
    def returncode(self):
        """The exit status, a negative signal, or None while it runs."""
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def send_signal(self, number):
        if self._process.is_alive():
            os.kill(self._process.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout):
        """(None, all of its stderr) once it has ended; raises TimeoutError."""
        self._process.join(timeout)
        if self._process.is_alive():
            raise TimeoutError(f"process {self._process.pid} runs for more than {timeout} s")
        self._said.seek(0)
        return None, self._said.read()
