"""`python tests/helpers/run_notebook.py NOTEBOOK PARAMETERS`: its code cells, one after the other, as Jupyter would run them, without Jupyter.

PARAMETERS is JSON, set after the cell with the tag `parameters`. What is displayed is opened, so that it must be there, and counted at the end.
"""

import json
import re
import sys
import types
from collections import Counter
from pathlib import Path

from PIL import Image

from maskanim_jax.video.reader import open_frames

SHOWN = []


class Video:
    def __init__(self, data, embed=False, html_attributes=""):
        assert embed, "Colab shows only videos that are embedded"
        with open_frames(data) as frames:
            self.count = len(list(frames))


class Picture:
    def __init__(self, data):
        assert data[:3] == b"GIF"


class Html(str):
    pass


def display(*shown):
    for each in shown:
        assert isinstance(each, Video | Picture | Html | Image.Image), type(each)
        SHOWN.append(type(each).__mro__[-2].__name__ if isinstance(each, Image.Image) else type(each).__name__)


def stand_in():
    """A module in the place of IPython.display; no IPython, whose presence other packages ask for."""
    module = types.ModuleType("IPython.display")
    module.display, module.Video, module.Image, module.HTML = display, Video, Picture, Html
    sys.modules["IPython.display"] = module


def pip(line):
    raise AssertionError(f"the project is installed, but the notebook would install it: {line}")


def main(path, parameters):
    stand_in()
    names = {"__name__": "__main__", "_pip": pip}
    for number, cell in enumerate(json.loads(Path(path).read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] != "code":
            continue
        text = re.sub(
            r"^(\s*)%pip (.*)$", lambda found: f"{found[1]}_pip({found[2]!r})", "".join(cell["source"]), flags=re.M
        )
        exec(compile(text, f"{Path(path).name}, cell {number}", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert set(parameters) <= set(names), "parameters that the notebook does not have"
            names |= parameters
    print("displayed:", json.dumps(Counter(SHOWN)))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
