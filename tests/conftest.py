"""Shared by all tests: the pinned environment, a tiny study in a temporary folder, packed arrays to train on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from twinrun.study.pins import clean_environment

# Before anything imports torch, as `twinrun train` does it.
_clean = clean_environment()
for _name in set(os.environ) - set(_clean):
    del os.environ[_name]
os.environ.update(_clean)

# A shell without job control starts what is in the background with SIGINT ignored, and processes inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Under nohup, which is no reason for what the tests start to outlive its terminal.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import yaml  # noqa: E402
from hypothesis import settings  # noqa: E402
from tests.warm.start import BINARIES, REAL, Warm  # noqa: E402

from twinrun.data.packed import PACKED_SCHEMA, chunk_digests, data_digest  # noqa: E402
from twinrun.study.files import sha256_file, write_json  # noqa: E402
from twinrun.study.layout import Layout  # noqa: E402
from twinrun.study.params import Params, read_params  # noqa: E402
from twinrun.study.pins import CUBLAS  # noqa: E402

REPOSITORY = Path(__file__).parents[1]
TINY = REPOSITORY / "tests" / "studies" / "tiny.yaml"


settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """One warm interpreter for the whole suite: xdist's workers, and tests of tests, find it by the environment."""
    if BINARIES not in os.environ:
        warm = Warm()
        config.add_cleanup(warm.stop)
        os.environ[BINARIES] = str(warm.binaries)


@pytest.fixture(scope="session", autouse=True)
def _warm() -> None:
    """What starts `sys.executable -m twinrun` starts a warm process."""
    sys.executable = f"{os.environ[BINARIES]}/python"


@pytest.fixture(autouse=True)
def _interpreter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The real interpreter for tests marked `cold`; no variable is left that a run in this process has set."""
    if request.node.get_closest_marker("cold"):
        monkeypatch.setattr(sys, "executable", REAL)
    yield
    os.environ.pop(CUBLAS, None)


def torch_sees_a_gpu() -> bool:
    """Whether there is a GPU; there is none for a core without PyTorch."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fast tests first, but slow ones where processes share the work, so that none is alone with them at the end.

    Those on a GPU only where there is one (left out, not skipped: nothing is hidden by it). Tests that share what their
    module has made are one group, and so are those of the reported study: `--dist loadgroup` makes it once.
    """
    if not torch_sees_a_gpu():
        items[:] = [item for item in items if not item.get_closest_marker("cuda")]
    if not os.environ.get("TWINRUN_REAL_DATA"):
        items[:] = [item for item in items if "real_data" not in getattr(item, "fixturenames", ())]
    for item in items:
        fixtures = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 - a private name
        if "reported" in fixtures:
            item.add_marker(pytest.mark.xdist_group("reported"))
        elif any(fixtures[name][-1].scope == "module" for name in fixtures):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    shared = hasattr(config, "workerinput")
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None) == shared)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say so where tests on real images were left out."""
    if not os.environ.get("TWINRUN_REAL_DATA"):
        terminalreporter.write_line("tests on real images were left out: TWINRUN_REAL_DATA names no folder")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With TWINRUN_NO_SKIPS set, as in CI, a skipped test is a failure: everything that tests need is there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("TWINRUN_NO_SKIPS"):
        reporter.write_line(
            f"TWINRUN_NO_SKIPS is set, and {len(skipped)} tests were skipped, such as {skipped[0].nodeid}"
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def write_packed(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray,
    n_train: int,
    classes: list[str],
    params_digest: str | None = None,
) -> None:
    """Packed arrays as `twinrun prepare` leaves them, from (n, channels, size, size) bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels.astype(np.int64))
    rows = "".join(f"{i},x{i},{'train' if i < n_train else 'test'},{y},{classes[y]},g\n" for i, y in enumerate(labels))
    (folder / "ids.csv").write_text("index,id,split,label,class,group\n" + rows)
    count = {split: {c: int((part == i).sum()) for i, c in enumerate(classes)}
             for split, part in (("train", labels[:n_train]), ("test", labels[n_train:]))}  # fmt: skip
    manifest = {
        "schema": PACKED_SCHEMA, "task": folder.name, "reader": "cifar10", "image_size": images.shape[-1],
        "channels": images.shape[1], "procedural": False, "classes": classes, "counts": count,
        "n_train": n_train, "n_test": len(labels) - n_train, "groups": {"train": 1, "test": 1},
        "source": {"path": "made by a test", "sha256": None}, "extra": {},
        "params_digest": params_digest or read_params(TINY).data_params_digest(folder.name),
        "chunks": chunk_digests(folder / "images.npy", images[0].nbytes, len(images)),
        "files": {name: sha256_file(folder / name) for name in ("labels.npy", "ids.csv")},
        "channel_mean": [0.4] * images.shape[1], "channel_std": [0.25] * images.shape[1],
    }  # fmt: skip
    manifest["remarks"] = []
    manifest["digest"] = data_digest(manifest)
    write_json(folder / "manifest.json", manifest)


def draw(count: int, classes: int, channels: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that can be told apart with some errors: a class-dependent pattern under noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    patterns = rng.integers(0, 256, (classes, channels, size, size))
    noise = rng.integers(0, 256, (count, channels, size, size))
    return ((3 * patterns[labels] + 2 * noise) // 5).astype(np.uint8), labels


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder with params and packed arrays; copy it before writing into it."""
    root = tmp_path_factory.mktemp("tiny")
    shutil.copy(TINY, root / "params.yaml")
    write_packed(root / "prepared" / "shapes", *draw(160, 4, 3, 8, 1), 96, ["a", "b", "c", "d"])
    write_packed(root / "prepared" / "cuts", *draw(128, 2, 1, 16, 2), 64, ["whole", "cut"])
    return root


@pytest.fixture
def study(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A fresh copy of the tiny study, as the current folder."""
    root = tmp_path / "study"
    shutil.copytree(tiny_folder, root)
    monkeypatch.chdir(root)
    return Layout(root)


@pytest.fixture
def params(study: Layout) -> Params:
    """The tiny study's params."""
    return read_params(study.root / "params.yaml")


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three sample archives, from the committed store; tests/sample paints them anew."""
    folder = tmp_path_factory.mktemp("sample")
    store = REPOSITORY / "datastore" / "files" / "md5"

    def stored(md5: str) -> Path:
        return store / md5[:2] / md5[2:]

    (tracked,) = yaml.safe_load((REPOSITORY / "data.dvc").read_text())["outs"]
    for entry in json.loads(stored(tracked["md5"]).read_text()):
        shutil.copyfile(stored(entry["md5"]), folder / entry["relpath"])
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets that the environment names; without it, tests that ask for it are left out.

    With it, a file that is missing there is a failure: as a reason to skip it would go unnoticed.
    """
    return Path(os.environ["TWINRUN_REAL_DATA"])
