"""Is every wrong or hostile checkpoint file refused with one sentence, without leaving files or executing anything?"""

import os
import pickle
import zipfile

import numpy as np
import pytest
from released_files import pm_file, small_config

from maskanim_jax.conversion.exporting import export_checkpoint
from maskanim_jax.conversion.importing import import_checkpoint
from maskanim_jax.conversion.perturbed_masks import tensors
from maskanim_jax.errors import UserError
from maskanim_jax.serialization.torch_writer import write_tensors


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convert")
    path = pm_file(folder / "07-checkpoint.pth.tar")
    import_checkpoint(path, folder / "run", small_config(), steps_per_epoch=3)
    return path, folder / "run"


# -- refusals ------------------------------------------------------------------------------------------------------------------------------


def refused(tmp_path, match, path=None, change=lambda tree: None, **options):
    """Nothing is left behind by an import that is refused."""
    path = path or pm_file(tmp_path / "wrong.pth.tar", change)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError, match=match) as caught:
        import_checkpoint(path, tmp_path / "run", small_config(), **options)
    assert sorted(os.listdir(tmp_path)) == before
    return str(caught.value)


def test_missing_extra_and_misshapen_tensors_are_named_together(tmp_path):
    def change(tree):
        del tree["generator"]["first.conv.bias"], tree["mask_generator"]["ref.weight"]
        tree["generator"]["surplus"] = np.zeros(3, np.float32)
        tree["discriminator"] = {"conv.weight": np.zeros(3, np.float32)}
        tree["generator"]["final.bias"] = np.zeros(4, np.float32)
        tree["generator"]["ref.bias"] = np.zeros(1, np.int64)

    sentence = refused(tmp_path, "2 missing", change=change)
    for part in (
        "2 missing (generator.first.conv.bias, mask_generator.ref.weight)",
        "2 extra (generator.surplus, discriminator.conv.weight)",
        "2 misshapen (",
        "generator.ref.bias is of type int64",
        "generator.final.bias is (4,) instead of (3,)",
        "--config",
    ):
        assert part in sentence


def test_many_wrong_tensors_are_counted_and_a_dozen_named(tmp_path):
    sentence = refused(tmp_path, "missing", change=lambda tree: tree.pop("mask_generator"))
    missing = sum(name.startswith("mask_generator") for name in tensors(small_config()))
    assert f"{missing} missing" in sentence
    assert f"and {missing - 12} more" in sentence
    assert sentence.count("mask_generator.") == 12


def test_a_file_of_another_size_is_refused_by_shape(tmp_path):
    path = pm_file(tmp_path / "wrong.pth.tar")
    config = small_config()
    config.fine.width = 8
    with pytest.raises(
        UserError, match=r"hourglass.encoder.down_blocks.0.conv.weight is \(8, 8, 3, 3\) instead of \(16, 8, 3, 3\)"
    ):
        import_checkpoint(path, tmp_path / "run", config)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tree: tree["generator"]["final.bias"].fill(np.nan), "finite.*generator.final.bias"),
        (
            lambda tree: tree["mask_generator"].update({"down.weight": np.zeros((3, 1, 5, 5), np.float32)}),
            "constant.*down.weight",
        ),
        (lambda tree: tree.update(epoch="12"), "epoch"),
        (lambda tree: tree.update(epoch=-1), "epoch"),
        (lambda tree: tree.update(optimizer_generator=[1]), "not an optimiser state"),
        (lambda tree: tree["optimizer_generator"]["param_groups"][0]["params"].pop(), "parameters, but not Adam's"),
        (lambda tree: tree["optimizer_generator"]["state"][0].pop("exp_avg"), "parameters, but not Adam's"),
        (lambda tree: tree["optimizer_generator"]["state"][0].update(step=3), "updated 3 and 12 times"),
        (
            lambda tree: tree["optimizer_generator"]["state"][0].update(step=float("nan")),
            "parameters, but not Adam's",
        ),
    ],
)
def test_wrong_values_are_refused(tmp_path, change, match):
    sentence = refused(tmp_path, match, change=change)
    if "optim" in sentence or "updated" in sentence:
        assert "--without_optimizer" in sentence


def test_settings_that_the_released_code_lacks_are_refused(imported, tmp_path):
    config = small_config()
    config.mask.border = "same"
    with pytest.raises(UserError, match=r"mask\.border=same"):
        import_checkpoint(imported[0], tmp_path / "run", config)


def test_what_is_there_is_not_lost(imported, tmp_path):
    path, run = imported
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        import_checkpoint(path, tmp_path / "taken", small_config())
    (tmp_path / "old.pth.tar").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        export_checkpoint(run, tmp_path / "old.pth.tar")
    assert (tmp_path / "old.pth.tar").read_text() == "mine"


# -- strangers -----------------------------------------------------------------------------------------------------------------------------


class Hostile:
    """Unpickled, it would run a command that leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Nested:
    """A call whose argument is the result of a call, deep in an innocent tree."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return eval, (f"[].__class__.__base__.__subclasses__() and open({str(self.path)!r}, 'w')",)


@pytest.mark.parametrize("hostile", [Hostile, Nested])
@pytest.mark.parametrize("place", ["top", "deep", "optimizer", "metadata"])
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, hostile, place):
    ran, path = tmp_path / "ran", tmp_path / "wrong.pth.tar"
    bad = hostile(ran)
    tree = {
        "top": bad,
        "deep": {"generator": {"first.conv.weight": [({"a": (bad,)},)]}},
        "optimizer": {"optimizer_generator": {"state": {0: {"step": bad}}}},
        "metadata": {"epoch": bad},
    }[place]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(tree, protocol=2))
        archive.writestr("archive/version", "3\n")
    refused(tmp_path, "wants to use (posix.system|__builtin__.eval|builtins.eval)", path)
    path.write_bytes(pickle.dumps(tree, protocol=2))  # a bare pickle is not even opened
    refused(tmp_path, "complete PyTorch checkpoint", path)
    assert not ran.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_a_sentence(tmp_path, share):
    path = pm_file(tmp_path / "wrong.pth.tar")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(tmp_path, "download or copy it again", path)


def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    path = tmp_path / "wrong.pth.tar"
    write_tensors(path, {"generator": {"first.conv.weight": np.zeros(20_000_000, np.float32)}})
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    assert path.stat().st_size < 1_000_000
    refused(tmp_path, "more memory than allowed", path)
