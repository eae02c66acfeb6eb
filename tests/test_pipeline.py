"""The pipeline under DVC, on a tiny study of real digits and cracks: what runs, what does not, what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tests.conftest import REPOSITORY
from tools.sample.build import SAMPLE_SHA256

import twinrun
from twinrun.collect.first_difference import read_first_difference, sentences
from twinrun.launch.up_to_date import is_up_to_date
from twinrun.study.files import sha256_file
from twinrun.study.params import read_params
from twinrun.study.records import read_record

STUDIES = [
    REPOSITORY / "params.yaml",
    *sorted((REPOSITORY / "studies").glob("*.yaml")),
    *sorted((REPOSITORY / "results").glob("*/params.yaml")),
]
STUDY = """
schema: 1
study: pipeline
grid: {tasks: [cracks, digits], optimizers: [sgd, adam], seeds: [0], runs: [det_1, nd_1]}
execution: {device: cpu, noise: auto, precision: fp32, fill_uninitialized_memory: false}
tasks:
  cracks:
    title: Cracks (procedural images)
    keep_model: {det: final}
    data: {reader: sdnet2018, source: data/sample/cracks.zip, image_size: 16, procedural: true, test_share: 0.25, split_seed: 0}
    model: {name: preactresnet18, width: 0.0625}
    recipe: {epochs: 1, batch_size: 128, heads_every: 1, metric: f1}
    optimizers: &both
      sgd: {lr: 0.05, momentum: 0.9, schedule: {kind: cosine, t_max_epochs: 2}}
      adam: {lr: 0.002, schedule: {kind: exponential, factor: 0.5}}
  digits:
    title: Digits
    data: {reader: cifar10, source: data/sample/digits.tar.gz, image_size: 8}
    model: {name: preactresnet18, width: 0.0625}
    recipe: {epochs: 1, batch_size: 128, heads_every: 1, metric: accuracy}
    optimizers: *both
"""  # noqa: E501


class Checkout:
    """A copy of what a fresh clone holds, with its own small study."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: dict[str, str] = {}
        self.records: list[bytes] = []  # of one run, before and after it was lost
        self.before_finish: set[str] = set()
        for name in ("src", "datastore", ".dvc", "dvc.yaml", "data.dvc", "models", ".dvcignore", ".gitignore"):
            source = REPOSITORY / name
            ignore = shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local")
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=ignore)
            else:
                shutil.copy(source, root / name)
        self.write(STUDY)
        subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)

    def write(self, text: str) -> None:
        (self.root / "params.yaml").write_text(text)

    def run(self, *command: str, code: int = 0, folder: Path | None = None) -> str:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(self.root / "src"),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str((folder or self.root) / ".dvc/tmp/site"),
            "GIT_CEILING_DIRECTORIES": str(self.root.parent),
        }  # fmt: skip
        done = subprocess.run(
            command, cwd=folder or self.root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def changed(self) -> set[str]:
        return set(json.loads(self.run("dvc", "status", "--json")))


RETRAINED = "digits/sgd/0/det_1"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A study that was pulled, trained in parallel, recorded and reported; tests that spoil it mend it again."""
    checkout = Checkout(tmp_path_factory.mktemp("clone"))
    checkout.run("dvc", "pull", "--quiet", "data.dvc")
    checkout.run("dvc", "repro", "--quiet", "prepare")
    checkout.run("twinrun", "sweep", "--jobs", "2")
    # One run is lost and trained again before `finish` makes the report, which takes the most time here.
    folder = checkout.root / "runs" / RETRAINED
    checkout.records = [(folder / "record.json").read_bytes()]
    shutil.rmtree(folder)
    checkout.said["one is missing"] = checkout.run("twinrun", "finish", code=3)
    checkout.run("twinrun", "train", RETRAINED)
    checkout.records.append((folder / "record.json").read_bytes())
    checkout.before_finish = checkout.changed()
    # As in a job: the environment is not activated, so the stages' commands are not on the path.
    checkout.said["all are there"] = checkout.run(
        "env", "PATH=/usr/bin:/bin", sys.executable, "-m", "twinrun", "finish"
    )
    return checkout


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone in which nothing has run."""
    return Checkout(tmp_path_factory.mktemp("unused"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.name)
def test_stage_names_equal_the_grid(file: Path, unused: Checkout) -> None:
    """DVC drops colliding matrix keys without a word: so its list is held against ours."""
    unused.write(file.read_text())
    for own in (file.parent / "models").glob("*.py"):  # in the study's folder, as its factories are named there
        shutil.copy(own, unused.root / "models")
    listed = [line.split()[0] for line in unused.run("dvc", "stage", "list").splitlines()]
    params = read_params(file, unused.root)
    assert [name for name in listed if name.startswith("train@")] == [run.stage for run in params.runs]
    assert [name for name in listed if name.startswith("prepare@")] == [f"prepare@{t}" for t in params.grid.tasks]


def test_the_embedded_remote_holds_the_sample_archives(checkout: Checkout) -> None:
    assert {file.name: sha256_file(file) for file in (checkout.root / "data" / "sample").iterdir()} == SAMPLE_SHA256


@pytest.mark.slow
def test_readme_shows_where_two_runs_part_as_it_is_said(checkout: Checkout) -> None:
    """But for its numbers and the operation, which are the sample study's: that is not trained here."""
    page = (REPOSITORY / "README.md").read_text()
    (shown,) = re.findall(r"^    \$ twinrun locate digits/sgd/\d+/det_1 nd_1\n((?:    .*\n)+?)    \.\.\.$", page, re.M)
    said = " ".join(sentences(read_first_difference(checkout.root / "located" / "digits.json"))[:3])
    assert _unnumbered(said) == _unnumbered(" ".join(shown.split()))


def _unnumbered(text: str) -> str:
    operation = r"phase (?:forward|backward), \S+ in \S+(?: \(\w+\))?, (?:input|output) [^:]+:"
    return re.sub(r"\d+(?:\.\d+)?", "N", re.sub(operation, "phase P, operation:", text))


@pytest.mark.slow
def test_parallel_runs_are_recorded_and_nothing_is_left_to_do(checkout: Checkout) -> None:
    assert checkout.changed() == set()
    assert (checkout.root / "report" / "index.html").stat().st_size > 10_000
    assert checkout.run("twinrun", "sweep").startswith("0 runs trained, 8 were there already\n")
    for known in (False, True):  # to us: DVC says so, and then it is not asked
        assert is_up_to_date(checkout.root) is known
        assert "Data and pipelines are up to date." in checkout.run("twinrun", "finish")
    assert "Data and pipelines are up to date" in checkout.run("dvc", "repro")


def commands_of(page: str) -> list[list[str]]:
    """The commands of each indented block of a page."""
    blocks = re.findall(r"(?:^    \S.*\n)+", (REPOSITORY / "docs" / page).read_text(), re.M)
    return [[line.strip() for line in block.splitlines()] for block in blocks]


@pytest.mark.slow
def test_a_study_is_shared_as_the_page_says(checkout: Checkout, tmp_path: Path) -> None:
    """And what DVC does to a remote with half of a study is what the page says."""
    give, take, remotes, _publish, _trackers, clean = commands_of("share.md")
    lab, origin, clone = tmp_path / "lab", tmp_path / "origin", tmp_path / "study"
    said = checkout.run("dvc", "push", code=1)
    assert "no remote specified" in said
    shutil.copytree(checkout.root, tmp_path / "mine", symlinks=True)  # other tests go on with it as it was
    mine = tmp_path / "mine"
    checkout.run("git", "init", "--quiet", "--bare", str(origin))
    for words in ("user.name me", "user.email me@example.org", "push.default current", f"remote.origin.url {origin}"):
        checkout.run("git", "config", *words.split(" ", 1), folder=mine)
    for command in give:
        checkout.run("bash", "-ec", command.replace("/mnt/lab/study", str(lab)), folder=mine)
    assert not checkout.run("git", "status", "--porcelain", folder=mine)
    sent = {file.relative_to(folder) for folder in (mine, REPOSITORY) for file in (folder / "datastore").rglob("*")}
    assert len(sent) == len(list((REPOSITORY / "datastore").rglob("*")))
    address = tmp_path / "address"  # other kinds of remote are written down, and not asked
    shutil.copytree(mine / ".dvc", address / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    checkout.run("git", "init", "--quiet", folder=address)
    secrets = re.findall(r"`(dvc remote modify --local lab [^`]+)`", (REPOSITORY / "docs" / "share.md").read_text())
    for command, secret in zip(remotes, secrets, strict=True):
        checkout.run(*command.partition(" && ")[2].replace("add", "add --force").split(), folder=address)
        checkout.run(*secret.split(), folder=address)
        assert " = ".join(secret.split()[-2:]) in (address / ".dvc" / "config.local").read_text()
        (address / ".dvc" / "config.local").unlink()
    checkout.run("dvc", "push", "collected", "analysis", "report", folder=mine)
    clone_line, _, _, _, pull, status, repro = take
    checkout.run("bash", "-ec", clone_line.replace("https://git.example.org/you/study", str(origin)), folder=tmp_path)
    checkout.run("dvc", "pull", "report", folder=clone)
    assert (clone / "report" / "index.html").is_file()
    assert not (clone / "runs").exists()
    checkout.run("bash", "-ec", pull, folder=clone)
    assert "8 complete" in checkout.run("bash", "-ec", status, folder=clone)
    assert "Data and pipelines are up to date" in checkout.run("bash", "-ec", repro, folder=clone)
    record = read_record(clone / "runs/cracks/sgd/0/det_1")
    study = twinrun.load(clone)
    model, recorded = study.model(record.run), study.probabilities(record.run)
    assert twinrun.fingerprint(model.network) == record.final_fingerprint
    images = torch.from_numpy(np.load(clone / "prepared/cracks/images.npy")[-len(recorded) :])
    np.testing.assert_array_equal(model(images).softmax(1).numpy(), recorded)
    unused = clone / ".dvc/cache/files/md5/00" / ("0" * 30)
    unused.parent.mkdir(exist_ok=True)
    unused.write_text("of a study that was tried")
    (gc,) = clean
    for command, left in ((gc.replace("--force", "--dry"), True), (gc, False)):
        checkout.run("bash", "-ec", command, folder=clone)
        assert unused.exists() is left
    checkout.run("bash", "-ec", gc.replace("--workspace", "--all-commits"), folder=clone)
    shutil.rmtree(clone / "runs")
    checkout.run("dvc", "checkout", "--quiet", folder=clone)
    assert "8 complete" in checkout.run("twinrun", "status", folder=clone)

    def pull_again(code: int) -> tuple[str, set[str]]:
        """What is said, and the runs that are there, each of them whole."""
        for name in (".dvc/cache", "prepared", "runs", "collected", "located", "analysis", "report"):
            shutil.rmtree(clone / name, ignore_errors=True)
        said = checkout.run("dvc", "pull", code=code, folder=clone)
        records = [read_record(file.parent, check_files=True) for file in clone.glob("runs/*/*/*/*/record.json")]
        assert len(records) == len(list(clone.glob("runs/*/*/*/*")))
        return said, {record.run for record in records}

    listing = stored(lab, yaml.safe_load((clone / "dvc.lock").read_text())["stages"]["train@digits-sgd-0-nd_1"])
    lab.rename(tmp_path / "away")
    said, runs = pull_again(code=1)
    assert "Checkout failed for following targets" in said, said
    assert not runs
    shutil.rmtree(lab, ignore_errors=True)  # DVC has made it, empty
    assert f"DVC's remote lab: no folder {lab};" in checkout.run("twinrun", "doctor", folder=clone)
    shutil.rmtree(lab, ignore_errors=True)
    (tmp_path / "away").rename(lab)
    interrupted = listing.rename(tmp_path / "listing")
    said, runs = pull_again(code=1)
    assert "Checkout failed for following targets:\nruns/digits/sgd/0/nd_1" in said
    assert len(runs) == 7
    interrupted.rename(listing)
    (record_file,) = (
        lab / "files/md5" / item["md5"][:2] / item["md5"][2:]
        for item in json.loads(listing.read_text())
        if item["relpath"] == "record.json"
    )
    record_file.chmod(0o644)
    record_file.write_text("damaged")
    said, runs = pull_again(code=1)
    assert "Checkout failed for following targets:\nruns/digits/sgd/0/nd_1" in said
    assert len(runs) == 7
    record_file.unlink()
    said, runs = pull_again(code=1)
    assert "failed to transfer" in said
    assert not runs
    for file in lab.glob("files/md5/*/*.dir"):
        file.unlink()
    mounted = ["unshare", "--mount", "--map-root-user", "bash", "-ec"]  # a mount that ends with the command
    read_only = f"mount --bind {lab} {lab}; mount -o remount,ro,bind {lab}; exec dvc push"
    assert f"Read-only file system: '{lab}" in checkout.run(*mounted, read_only, code=1, folder=mine)
    full = f"mount -t tmpfs -o size=64k tmpfs {lab}; if dvc push; then exit 7; fi; mount -o remount,size=1g {lab}"
    said = checkout.run(*mounted, f"{full}; dvc push", folder=mine)
    assert "No space left on device" in said
    assert "files failed to upload" in said
    assert "files pushed" in said
    checkout.run("dvc", "push", folder=mine)
    assert len(pull_again(code=0)[1]) == 8


def stored(remote: Path, stage: dict[str, list[dict[str, str]]]) -> Path:
    """The file in a remote that lists what a stage made."""
    md5 = stage["outs"][0]["md5"]
    return remote / "files" / "md5" / md5[:2] / md5[2:]


@pytest.mark.slow
def test_a_crate_is_verified_where_it_is_unpacked(checkout: Checkout, tmp_path: Path) -> None:
    crate, run = tmp_path / "crate", "digits/sgd/0/det_1"
    said = checkout.run("twinrun", "export", "--to", "ro-crate", "--out", str(crate))
    assert f"SHA-256 {sha256_file(crate / 'ro-crate-metadata.json')} stands for all that is in the crate" in said
    assert "there is no LICENSE in the study folder, so the crate states none" in said
    assert "not prepared yet: digits" in checkout.run("twinrun", "verify", run, folder=crate, code=3)
    shutil.copytree(checkout.root / "data", crate / "data")  # which are not in it
    checkout.run("twinrun", "prepare", "digits", folder=crate)
    said = checkout.run("twinrun", "verify", run, folder=crate)
    assert "files of the crate are as they were packed" in said
    assert f"SHA-256 of ro-crate-metadata.json: {sha256_file(crate / 'ro-crate-metadata.json')}" in said
    assert f"{run}\trecord\t1 epoch\tequal" in said
    with (crate / "report" / "index.html").open("ab") as stream:
        stream.write(b" ")
    assert "report/index.html was changed" in checkout.run("twinrun", "verify", run, folder=crate, code=4)


@pytest.mark.slow
def test_a_change_to_one_task_touches_that_task_alone(checkout: Checkout) -> None:
    checkout.write(STUDY.replace("image_size: 8}", "image_size: 10}"))
    changed = checkout.changed()
    assert {name.split("-")[0] for name in changed if name.startswith("train@")} == {"train@digits"}
    assert not {name for name in changed if "cracks" in name}
    checkout.write(STUDY)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "stale", "runs"),
    [
        (("cli/app", "inspect/__init__", "fetch/__init__", "report/__init__"), {"locate", "analyze", "report"}, 0),
        (("training/__init__",), {"train", "collect", "locate"}, 8),
    ],
)
def test_an_edit_makes_stale_what_it_can_change_alone(
    files: tuple[str, ...], stale: set[str], runs: int, checkout: Checkout
) -> None:
    contents = {checkout.root / f"src/twinrun/{name}.py": b"" for name in files}
    for file in contents:
        contents[file] = file.read_bytes()
        file.write_bytes(contents[file] + b"# a comment\n")
    changed = {name.split("@")[0] for name in checkout.changed()}
    said = checkout.run("twinrun", "status", code=3 if runs else 0)
    for file, content in contents.items():
        file.write_bytes(content)
    assert changed == stale
    assert (f"{runs} other code" if runs else "8 complete") in said


@pytest.mark.slow
def test_keeping_more_networks_trains_no_other_run_again(checkout: Checkout) -> None:
    content = yaml.safe_load(STUDY)
    content["tasks"]["digits"]["keep_model"] = {"det": "final"}
    checkout.write(yaml.safe_dump(content, sort_keys=False))
    assert not {name for name in checkout.changed() if name.startswith("train@")}
    said = checkout.run("twinrun", "status", code=3)
    assert "2 without its model" in said
    assert "6 complete" in said
    assert "`twinrun sweep` trains them again" in checkout.run("twinrun", "collect", code=4)
    checkout.write(STUDY)


@pytest.mark.slow
def test_a_change_to_one_optimizer_touches_its_runs_alone(checkout: Checkout) -> None:
    content = yaml.safe_load(STUDY)
    content["tasks"]["digits"]["optimizers"] = json.loads(json.dumps(content["tasks"]["digits"]["optimizers"]))
    content["tasks"]["digits"]["optimizers"]["adam"]["lr"] = 0.003
    checkout.write(yaml.safe_dump(content, sort_keys=False))
    trains = {name for name in checkout.changed() if name.startswith("train@")}
    assert trains == {"train@digits-adam-0-det_1", "train@digits-adam-0-nd_1"}
    checkout.write(STUDY)


@pytest.mark.slow
def test_stale_runs_of_a_larger_grid_are_not_collected(checkout: Checkout) -> None:
    before = (checkout.root / "collected" / "results.csv").read_bytes()
    checkout.write(STUDY.replace("[det_1, nd_1]", "[det_1]"))
    checkout.run("twinrun", "collect")
    rows = (checkout.root / "collected" / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 4
    checkout.write(STUDY)
    checkout.run("twinrun", "collect")
    assert (checkout.root / "collected" / "results.csv").read_bytes() == before


@pytest.mark.slow
def test_serial_dvc_and_a_parallel_sweep_give_the_same_files(checkout: Checkout, tmp_path: Path) -> None:
    """One stage run by `dvc repro` itself, in another folder: byte for byte what the sweep recorded."""
    other = Checkout(tmp_path / "other clone")  # a path with a space
    other.run("dvc", "pull", "--quiet", "data.dvc")
    other.run("dvc", "repro", "--quiet", "train@digits-sgd-0-det_1")
    folder = "runs/digits/sgd/0/det_1"
    for name in ("record.json", "curve.csv", "predictions.npz", "weights.safetensors"):
        assert (other.root / folder / name).read_bytes() == (checkout.root / folder / name).read_bytes()


@pytest.mark.slow
def test_a_collected_study_without_one_run_is_refused_and_the_rest_stays(checkout: Checkout) -> None:
    folder = checkout.root / "runs/digits/sgd/0/nd_1"
    moved = checkout.root / "moved"
    folder.rename(moved)
    said = checkout.run("twinrun", "collect", "--check", code=3)
    assert "digits/sgd/0/nd_1" in said
    assert "twinrun sweep" in said
    moved.rename(folder)
    checkout.run("twinrun", "collect", "--check")


@pytest.mark.slow
def test_finish_names_what_is_missing_then_records_and_reports(checkout: Checkout) -> None:
    assert f"1 of 8 runs are not there:\n  {RETRAINED} (missing)" in checkout.said["one is missing"]
    assert "Traceback" not in checkout.said["one is missing"]
    assert len(set(checkout.records)) == 1
    assert "train@digits-sgd-0-det_1" in checkout.before_finish, "its seconds are new"
    assert "8 runs are recorded" in checkout.said["all are there"]
    assert checkout.changed() == set()
    assert (checkout.root / "report/index.html").is_file()


@pytest.mark.slow
def test_a_users_own_files_beside_the_sample_are_left_alone(checkout: Checkout) -> None:
    own = checkout.root / "data" / "own.bin"
    own.write_bytes(b"mine")
    pointer = (checkout.root / "data.dvc").read_bytes()
    checkout.run("dvc", "pull", "--quiet", "data.dvc")
    checkout.run("dvc", "repro", "--quiet", "prepare")
    checkout.run("dvc", "checkout", "--quiet", "data.dvc")
    assert own.read_bytes() == b"mine"
    assert (checkout.root / "data.dvc").read_bytes() == pointer
    own.unlink()
    checkout.run("dvc", "repro", "--quiet", "prepare")
    assert checkout.changed() == set()
