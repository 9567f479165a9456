"""What does a user see when the input is bad? One clear sentence, and a non-zero exit."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad input or a wrong setting: the message is one sentence with the path and the mend."""


def exit_with_sentence(main: Callable[[], int | None]) -> None:
    """Runs `main` and ends the process: 0 on success, 2 on a `UserError`, 130 on Ctrl-C.

    Other exceptions are defects of this project and keep their traceback (exit status 1).
    """
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped by the keyboard", file=sys.stderr)
        sys.exit(130)
    sys.exit(status or 0)
