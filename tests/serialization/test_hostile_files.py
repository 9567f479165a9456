"""Is every hostile image, video, table and checkpoint refused in one sentence, within bounded time and memory?

Each is read in its own process, with limited memory and one minute of time.
"""

import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import hostile
import pytest
from clips import clip, save

from input_pipeline.preparation.boxes import read_boxes
from maskanim_jax.animation.pairs import Pair, read_pairs
from maskanim_jax.errors import UserError
from maskanim_jax.pretrained.vgg19 import shapes
from maskanim_jax.serialization.torch_reader import read_tensors
from maskanim_jax.video.integrity import check_not_truncated

MEMORY = 3 << 30  # address space, most of it libraries
READ = """
import resource, sys
from pathlib import Path
from input_pipeline.preparation.boxes import read_boxes
from maskanim_jax.animation.pairs import read_pairs
from maskanim_jax.errors import UserError
from maskanim_jax.serialization.torch_reader import read_tensors
from maskanim_jax.serialization.npz import read_npz
from maskanim_jax.video.reader import open_frames
from maskanim_jax.pretrained.vgg19 import _from_file
def frames(path):
    with open_frames(path) as source:
        return [frame.shape for frame, _ in zip(source, range(3))]
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
readers = {".csv": lambda path: read_pairs(path, None), ".boxes": read_boxes, ".pth": read_tensors}
readers |= {".npz": lambda path: read_npz(path, "give another", 1 << 25), ".h5": lambda path: _from_file(path, path.parent)}
for name in sys.argv[2:]:
    try:
        readers.get(Path(name).suffix, frames)(Path(name))
        print("READ", name)
    except UserError as error:
        print(error)
"""


def tables(folder):
    """Tables that are none: a page, no text, one line of a million cells, a cell without end."""
    contents = {
        "page": b"<!DOCTYPE html>\n<html><script>alert(1)</script>\n",
        "null": b"clip,start,end,x0,y0,x1,y1\nsource,driving\0\n\0,\0\n",
        "utf16": "clip,start,end,x0,y0,x1,y1\na,,,,,,\n".encode("utf-16"),
        "latin": "clip,start,end,x0,y0,x1,y1\n\xe9t\xe9,,,,,,\n".encode("latin-1"),
        "wide": b"," * 1_000_000 + b"\n",
        "cell": b'clip,start,end,x0,y0,x1,y1\n"' + b"a" * 1_000_000,
        "empty": b"",
    }
    for name, content in contents.items():
        for suffix in (".csv", ".boxes"):
            (folder / (name + suffix)).write_bytes(content)
            yield folder / (name + suffix)


@pytest.mark.subprocess
def test_every_hostile_file_is_refused_in_a_sentence_within_time_and_memory(tmp_path):
    whole = save(tmp_path / "whole.mp4", clip(2))
    nested, note, loop = tmp_path / "nested", tmp_path / "note", tmp_path / "loop.png"
    for folder, text in ((nested, "[" * 100_000), (note, '{"fps": "1e-999999999"}')):
        folder.mkdir()
        hostile.png(folder / "0.png", 1, 1, b"\0\0\0\0")
        (folder / "clip.json").write_text(text)
    loop.symlink_to(loop)
    files = [
        hostile.png(tmp_path / "header.png", 100_000, 100_000),
        hostile.png(tmp_path / "bomb.png", 13_000, 13_000, bytes(1 << 20)),
        hostile.gif(tmp_path / "canvas.gif", 65_535, 65_535),
        hostile.with_many_samples(tmp_path / "many.mp4", whole, 0x7FFFFFFF),
        hostile.playlist(tmp_path / "hls.mp4", "hls", whole),
        hostile.playlist(tmp_path / "concat.mp4", "concat", whole),
        *(
            hostile.pipe(tmp_path / f"pipe{suffix}")
            for suffix in (".png", ".mp4", ".csv", ".boxes", ".pth", ".npz", ".h5")
        ),
        *(nested, note, loop, Path("/dev/zero")),
        *hostile.headers(tmp_path),
        hostile.text_bomb(tmp_path / "comment.png"),
        hostile.many_frames(tmp_path / "frames.gif", 2000, 11_500),
        hostile.grows_on_the_way(tmp_path / "grows.avi", 16_000),
        *hostile.npz_bombs(tmp_path),
        hostile.torch_bomb(tmp_path / "storage.pth", 1 << 27),
        hostile.keras(tmp_path / "chunk.h5", shapes(), chunks=(3, 3, 3, 1 << 22), maxshape=(3, 3, 3, None)),
        hostile.keras(tmp_path / "elsewhere.h5", shapes(), external=[("/dev/zero", 0, 6912)]),
        hostile.keras(tmp_path / "text.h5", shapes(), dtype="S1000"),
        *(tables(tmp_path)),
        hostile.pickled(tmp_path / "deep.pth", hostile.tuple_as_key(900_000, False)),
        hostile.pickled(tmp_path / "twice.pth", hostile.tuple_as_key(60, True)),
        hostile.pickled(tmp_path / "hashes.pth", hostile.equal_hashes(100_000)),
    ]
    command = [sys.executable, "-c", READ, str(MEMORY), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == len(files), done.stdout
    for path, sentence in zip(files, said, strict=True):
        assert str(path) in sentence
        assert not sentence.startswith("READ")


def test_names_in_a_sentence_can_not_break_the_line_or_steer_the_terminal(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text('source,driving\n"a\nerror: \x1b[2Jall is well\u202e",b\n')
    with pytest.raises(UserError) as caught:
        read_pairs(path, None)
    assert str(caught.value).isprintable()
    assert r"\x1b[2J" in str(caught.value)


def test_a_result_stays_in_its_folder_and_has_a_name_that_fits():
    name = Pair(2, Path("../../" + "語" * 85), Path("/etc/..")).output_name(3)
    assert "/" not in name
    assert len(name.encode("utf-8", "surrogateescape")) < 255


@pytest.mark.parametrize("number", ["1e300", "99999999999999999999", "nan", "inf"])
def test_numbers_that_no_video_has_are_refused(tmp_path, number):
    (tmp_path / "boxes.csv").write_text(f"clip,start,end,x0,y0,x1,y1\na,0,{number},,,,\n")
    with pytest.raises(UserError, match="line 2"):
        read_boxes(tmp_path / "boxes.csv")


def mutated(data, count):
    """`data` with some bytes changed, cut out or repeated; the same every time."""
    rng = random.Random(0)
    for _ in range(count):
        new = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(new))
            kind = rng.randrange(3)
            if kind == 0:
                new[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
            elif kind == 1 and len(new) > 50:
                del new[at : at + rng.randint(1, 9)]
            else:
                new[at:at] = new[at : at + rng.randint(1, 40)]
        yield bytes(new)


@pytest.mark.parametrize("reader", ["tensors", "whole", "boxes", "pairs"])
def test_a_mutated_file_is_read_or_refused_and_never_anything_else(tmp_path, reader):
    from maskanim_jax.serialization.torch_writer import write_tensors

    path = tmp_path / "file"
    if reader == "tensors":
        import numpy as np

        write_tensors(path, {"a": {"w": np.ones((2, 3), np.float32), "n": 3}, "betas": (0.5, 0.9)})
    elif reader == "whole":
        path.write_bytes(save(tmp_path / "a.mp4", clip(2)).read_bytes())
    elif reader == "boxes":
        path.write_text("clip,start,end,x0,y0,x1,y1\na.mp4,0,10,1,2,30,40\nb,,,,,,\n")
    else:
        path.write_text(f"source,driving\n{path},{path}\nfile,file\n")
    read = {
        "tensors": read_tensors,
        "whole": check_not_truncated,
        "boxes": read_boxes,
        "pairs": lambda path: read_pairs(path, None),
    }
    for data in mutated(path.read_bytes(), 150):
        path.write_bytes(data)
        with suppress(UserError):
            read[reader](path)
