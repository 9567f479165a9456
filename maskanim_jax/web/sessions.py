"""Which files on the server belong to which visitor?

They are deleted when the page is closed. (No Gradio.)
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from maskanim_jax.errors import UserError
from maskanim_jax.workdir.results import InputPair

_EXAMPLE = "example-"


class Sessions:
    """Tracks the files of each visitor, to delete them when the page is closed."""

    def __init__(self, root: Path) -> None:
        self.root, self._files = root.resolve(), defaultdict[str, set[Path]](set)
        self._folders: dict[str, Path] = {}

    def uploaded(self, session: str, given: object) -> Path | None:
        """The path of an upload, recorded as the session's; raises UserError for a
        file that was not uploaded.
        """
        if given is None:
            return None
        path = Path(str(given.get("path", ""))) if isinstance(given, Mapping) else Path(str(given))
        if self.root not in path.resolve().parents:
            raise UserError("this file was not uploaded: choose it again")
        if not path.exists():
            raise UserError(f"{path.name} was removed after a while: choose the file again")
        self._files[session].add(path)
        return path

    def folder(self, session: str) -> Path:
        """The session's own folder, for results."""
        if session not in self._folders:
            self._folders[session] = Path(tempfile.mkdtemp(prefix="session-", dir=self.root))
        return self._folders[session]

    def copy_example(self, session: str, pair: InputPair) -> InputPair:
        """Copies an example into the session's folder; the server's own
        files are never handed out.
        """
        folder = self.folder(session)
        return InputPair(*(Path(shutil.copy(path, folder / f"{_EXAMPLE}{path.name}")) for path in pair))

    def may_replace(self, given: object) -> bool:
        """Whether the input is empty or an example; a visitor's own file is never replaced."""
        path = given.get("path") if isinstance(given, Mapping) else given
        return not path or Path(str(path)).name.startswith(_EXAMPLE)

    def close(self, session: str) -> None:
        """Removes the session's results, and its uploads unless another session also uses them."""
        shutil.rmtree(self._folders.pop(session, self.root / "none"), ignore_errors=True)
        for path in self._files.pop(session, set()).difference(*self._files.values()):
            path.unlink(missing_ok=True)
