"""How do I prepare these data sets with tensorflow-datasets?

Import this module, then use `tfds.builder`:

    builder = tfds.builder("mgif", data_dir="data", size=128)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=ROOT))
    source = builder.as_data_source("train")

Nothing is downloaded: ROOT holds train/ and test/, as for `python -m input_pipeline.prepare`, and
the result is the same: a folder that you can train on. `tfds.builder_from_directory(folder)`
reads it without this project.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from input_pipeline.preparation import shard_writer as stored
from input_pipeline.preparation.catalog import SETS
from input_pipeline.preparation.pipeline import Job, write_set
from input_pipeline.preparation.shard_jobs import Settings
from input_pipeline.preparation.staging import work_folder
from input_pipeline.preparation.workers import Beam


class _Frames(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """One data set of frames; the arguments are those of `prepare`."""

    VERSION = tfds.core.Version(stored.VERSION)
    # Nothing is downloaded; to look up checksums, tfds 4.9.10 needs a package that it does not install.
    code_path = None
    url_infos = None

    def __init__(
        self,
        *,
        size: int = 256,
        encoding: str = "jpeg",
        quality: int = 95,
        min_frames: int = 2,
        strict: bool = False,
        boxes: str | os.PathLike[str] | None = None,
        workers: int = 1,
        **kwargs: Any,
    ) -> None:
        self._settings = Settings(size, encoding, quality, min_frames, strict)
        self._boxes, self._workers = Path(boxes) if boxes is not None else None, workers
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return stored.dataset_info(self, self.name, self._settings.size, self._settings.encoding)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        raise NotImplementedError("splits are written by _generate_splits")

    def _generate_examples(self) -> Any:
        raise NotImplementedError("records are written by _generate_splits")

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[Any]:
        # tfds would sort all records first: above 1 GB a split that needs TensorFlow, and a kill loses everything.
        options, runner = download_config.beam_options, download_config.beam_runner
        beam = Beam(options=options, runner=runner) if options or runner else None
        root, data = Path(dl_manager.manual_dir), Path(self.data_dir)
        job = Job(root, self._settings, self.name, self._boxes, self._workers, beam)
        place = Path(self._data_dir_root).absolute() / self.name
        place.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(place, exclusive=True) as folder:
            counts = write_set(job, folder, data)
            for part in folder.glob("*.array_record"):
                part.unlink()
        return stored.split_infos(data, self.name, counts)


class TaichiHd(_Frames):
    """Tai-Chi-HD."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = SETS["taichi_hd"].instructions


class Voxceleb256(_Frames):
    """VoxCeleb at 256 x 256."""

    name = "voxceleb_256"
    MANUAL_DOWNLOAD_INSTRUCTIONS = SETS["voxceleb_256"].instructions


class Bair256(_Frames):
    """BAIR at 256 x 256."""

    name = "bair_256"
    MANUAL_DOWNLOAD_INSTRUCTIONS = SETS["bair_256"].instructions


class Mgif(_Frames):
    """MGif, moving gifs."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = SETS["mgif"].instructions


class VideoFolder(_Frames):
    """Your own clips."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = SETS["video_folder"].instructions
