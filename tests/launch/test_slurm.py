"""The SLURM scripts: their text, and what they do when bash runs them; .ci/slurm has them run by a real SLURM."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY
from tests.test_cli import Cli, cli, isolated  # noqa: F401 - a fixture

from twinrun.launch.slurm import Jobs, array_script, chunked, finish_script, site_lines, submit_script
from twinrun.study.errors import InputError
from twinrun.study.grid import Run
from twinrun.study.layout import CHECKPOINT, RECORD, Layout
from twinrun.study.params import Params, read_params
from twinrun.study.records import read_measured

GOLDEN = REPOSITORY / "tests" / "golden"
JOBS = Jobs(
    study="tiny",
    grid_digest="0123456789abcdef" * 4,
    chunks=(("shapes/sgd/0/det_1", "shapes/sgd/0/nd_1"), ("cuts/sgd/0/det_1",)),
    python="/opt/my env/bin/python",
    image='/data/it\'s "größer" $HOME/twin run.sif',
    gpu=True,
    at_once=4,
    scratch=True,
    site=("#SBATCH --gres=gpu:1", "#SBATCH --comment='two words'"),
    site_finish=("#SBATCH --partition=cpu",),
    chunk=2,
)
SCRIPTS = {"array.sbatch": array_script, "finish.sbatch": finish_script, "submit.sh": submit_script}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_text_is_the_golden_one(name: str) -> None:
    """Renew with: python -m tests.launch.test_slurm"""
    assert SCRIPTS[name](JOBS) == (GOLDEN / name).read_text()


def test_all_scripts_are_bash_with_and_without_a_container() -> None:
    for jobs in (JOBS, replace(JOBS, image=None), replace(JOBS, chunks=(), scratch=False, at_once=None)):
        for script in SCRIPTS.values():
            subprocess.run(["bash", "-n"], input=script(jobs), text=True, check=True)


def test_chunks_hold_every_run_once() -> None:
    assert chunked(["a", "b", "c", "d", "e"], 2) == (("a", "b"), ("c", "d"), ("e",))
    assert chunked([], 2) == ()


def test_timings_are_marked_unless_the_node_is_ours() -> None:
    assert "options=(--shared)" in array_script(JOBS)
    assert "options=()" in array_script(replace(JOBS, site=("#SBATCH --exclusive",)))
    assert "options=(--shared)" in array_script(replace(JOBS, site=("#SBATCH --exclusive=user",)))


def test_the_gpu_enters_the_container_only_where_the_study_wants_it() -> None:
    assert "gpu=yes\n" in array_script(JOBS)
    assert "gpu=\n" in array_script(replace(JOBS, gpu=False))


def test_paths_in_the_script_are_those_of_the_layout() -> None:
    run = Run("t", "sgd", 0, "det", 1)
    text = array_script(JOBS)
    for path in (Layout().work(run) / CHECKPOINT, Layout().run(run) / RECORD):
        assert str(path).replace(run.id, "$run") in text


def test_site_lines_are_passed_on() -> None:
    text = "# a comment\n\n##SBATCH --qos=off\n#SBATCH --account=lab  # ours\n#SBATCH -p gpu\n"
    assert site_lines(Path("site"), text) == ("#SBATCH --account=lab  # ours", "#SBATCH -p gpu")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--partition=gpu", "every line is `#SBATCH --option=value`"),
        ("#SBATCH partition=gpu", "every line is"),
        ("module load cuda", "every line is"),
        ("#SBATCH --array=0-9", "--array is set by twinrun"),
        ("#SBATCH -a 0-9", "--array is set by twinrun"),
        ("#SBATCH --chdir /x", "--chdir is set by twinrun"),
        ("#SBATCH -d afterok:1", "--dependency is set by twinrun"),
    ],
)
def test_site_lines_that_cannot_work_are_named(line: str, words: str) -> None:
    with pytest.raises(InputError, match=r"site\.sbatch, line 2") as error:
        site_lines(Path("site.sbatch"), f"# first\n{line}\n")
    assert words in str(error.value)


def test_site_lines_come_from_a_file(odd: Path, cli: Cli) -> None:  # noqa: F811
    (odd / "slurm").mkdir()
    os.mkfifo(odd / "slurm" / "site.sbatch")
    code, _, err = cli("slurm")
    assert (code, "site.sbatch: a pipe" in err) == (2, True)


# What follows runs the scripts with bash, in a study folder whose path has all that a path can have.


@pytest.fixture
def odd(study: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny study with four runs, elsewhere."""
    root = tmp_path / 'it\'s a "größer" $HOME, 50%:x'
    study.root.rename(root)
    monkeypatch.chdir(root)
    file = root / "params.yaml"
    text = file.read_text().replace("tasks: [shapes, cuts]", "tasks: [shapes]").replace("[0, 7]", "[0]")
    file.write_text(text.replace("[det_1, det_2, nd_1, nd_2]", "[det_1, nd_1]"))
    return root


@pytest.fixture
def small(odd: Path) -> Params:
    return read_params(odd / "params.yaml")


def task(number: int, root: Path, **variables: str) -> subprocess.Popen[str]:
    """Array task `number`, as SLURM starts it."""
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_JOB_ID": "71"} | variables
    return subprocess.Popen(
        ["bash", "slurm/array.sbatch"], cwd=root, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=120)
    return process.returncode, out


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


def test_the_container_gets_each_path_as_one_word(odd: Path, small: Params, tmp_path: Path, cli: Cli) -> None:  # noqa: F811
    image = tmp_path / "twin run's.sif"
    image.touch()
    assert cli("slurm", "--image", str(image), "--chunk", "4", "--scratch")[0] == 0
    tool(tmp_path / "bin", "apptainer", 'printf "%s\\n" "$@"; env | grep ^APPTAINERENV_')
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    code, out = ended(task(0, odd, PATH=path, TMPDIR=str(tmp_path), CUDA_VISIBLE_DEVICES="2,3"))
    assert code == 0
    lines = out.splitlines()
    assert lines.count(str(image)) == 1
    at = lines.index("train-chunk")
    assert lines[at + 1 : at + 6] == [*(run.id for run in small.runs), "--expect-grid"]
    assert lines[1:7] == ["--quiet", "run", "--cleanenv", "--no-home", "--mount",
                          'type=bind,"source=' + str(odd).replace('"', '""') + '",destination=/study']  # fmt: skip
    assert "--nv" not in lines  # the tiny study runs on the CPU
    assert "APPTAINERENV_CUDA_VISIBLE_DEVICES=2,3" in lines
    assert "APPTAINERENV_SLURM_JOB_ID=71" in lines
    assert not list(tmp_path.glob("twinrun-*")), "the copy on the node's disk is gone"


@pytest.mark.slow
def test_two_arrays_over_the_same_grid_train_each_run_once(odd: Path, small: Params, cli: Cli) -> None:  # noqa: F811
    code, out, _ = cli("slurm", "--chunk", "4")
    assert code == 0
    assert "#SBATCH --array=0-0\n" in out
    both = [ended(process) for process in [task(0, odd), task(0, odd)]]
    assert [code for code, _ in both] == [0, 0]
    assert all("Traceback" not in said for _, said in both)
    for run in small.runs:
        measured = read_measured(odd / "runs" / run.id)
        assert (measured.attempts, measured.shared, measured.resumed) == (1, True, False)
        assert measured.environment["SLURM_JOB_ID"] == "71"
    trained = sum(said.count("epoch 4/4") for _, said in both)
    assert trained == 4
    # Once more: nothing to do, and a task that is not in the script.
    assert "epoch" not in ended(task(0, odd))[1]
    code, said = ended(task(1, odd))
    assert code == 2
    assert "there is no array task 1: this script has 0 to 0" in said
    # Nothing is missing: only what comes after is submitted.
    assert cli("slurm")[0] == 0
    assert not (odd / "slurm/array.sbatch").exists()
    assert "tasks=0\n" in (odd / "slurm/submit.sh").read_text()


@pytest.mark.slow
def test_params_changed_after_submission_are_refused(odd: Path, cli: Cli) -> None:  # noqa: F811
    assert cli("slurm", "--chunk", "4")[0] == 0
    file = odd / "params.yaml"
    file.write_text(file.read_text().replace("lr: 0.05", "lr: 0.06"))
    code, said = ended(task(0, odd))
    assert code == 4
    assert said.count("params.yaml was changed after this job was submitted") == 1
    assert "submit again" in said
    assert not (odd / "runs").exists()
    digest = next(line for line in (odd / "slurm/finish.sbatch").read_text().splitlines() if line.startswith("grid="))
    code, _, err = cli("finish", "--expect-grid", digest.removeprefix("grid="))
    assert code == 4
    assert "nothing was trained or recorded" in err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 0)])
def test_a_signal_stops_the_run_and_the_next_attempt_goes_on(
    number: signal.Signals,
    code: int,
    odd: Path,
    small: Params,
    tmp_path: Path,
    cli: Cli,  # noqa: F811
) -> None:
    """Of a short time the script asks for another turn, when this one led to something; a cancelled one does not."""
    file = odd / "params.yaml"
    file.write_text(file.read_text().replace("epochs: 4", "epochs: 2000"))
    assert cli("slurm", "--chunk", "2")[0] == 0
    tool(tmp_path / "bin", "scontrol", 'echo "scontrol $*"')
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    process = task(0, odd, PATH=path, SLURM_ARRAY_JOB_ID="70")
    checkpoint = odd / "work" / small.runs[0].id / CHECKPOINT
    deadline = time.monotonic() + 100
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    running = cli("status")[1]
    process.send_signal(number)
    status, said = ended(process)
    assert status == code
    assert ("scontrol requeue 70_0" in said) == (number == signal.SIGUSR1)
    assert "interrupted; what was finished is kept" in said
    assert f"{small.runs[0].id}\trunning, " in running
    # Dates that lie, as those of a file server with another clock do, change nothing.
    for path_of, date in ((checkpoint, 1), (checkpoint.with_name("lock"), 4e9)):
        os.utime(path_of, (date, date))
    out = cli("status")[1]
    assert f"{small.runs[0].id}\tinterrupted, " in out
    assert "of 2000 epochs saved" in out
    assert "4 runs: 1 interrupted, 3 missing" in out


def test_time_that_is_too_short_for_an_epoch_is_not_tried_again(odd: Path, tmp_path: Path, cli: Cli) -> None:  # noqa: F811
    assert cli("slurm", "--image", str(odd / "params.yaml"))[0] == 0
    tool(tmp_path / "bin", "apptainer", "kill -USR1 $PPID; exec sleep 20")
    code, said = ended(task(0, odd, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}"))
    assert code == 1
    assert "the time was up before the first checkpoint" in said


@pytest.mark.slow
def test_a_full_node_disk_falls_back_to_the_study_folder(odd: Path, small: Params, cli: Cli) -> None:  # noqa: F811
    assert cli("slurm", "--scratch")[0] == 0
    script = """
        mkdir node
        mount -t tmpfs -o size=16k tmpfs node
        SLURM_ARRAY_TASK_ID=0 TMPDIR=$PWD/node bash slurm/array.sbatch
        ls -d node/twinrun-* && exit 9
        exit 0
    """
    done = isolated(odd, script)
    assert done.returncode == 0, done.stderr
    assert "has no room for prepared/shapes" in done.stderr
    assert "reading it from the study folder" in done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{small.runs[0].id} complete")


def test_a_study_folder_that_cannot_be_written_is_named(odd: Path, cli: Cli) -> None:  # noqa: F811
    assert cli("slurm")[0] == 0
    script = """
        study=$PWD
        cd /
        mount --bind "$study" "$study"
        mount -o remount,ro,bind "$study"
        cd "$study"
        SLURM_ARRAY_TASK_ID=0 bash slurm/array.sbatch && exit 9
        SLURM_ARRAY_TASK_ID=0 bash slurm/submit.sh && exit 9
        exec "$0" -m twinrun slurm
    """
    done = isolated(odd, f"set -- {shlex.quote(sys.executable)}\n" + script.replace('"$0"', '"$1"'))
    assert done.returncode == 2, done.stderr
    assert "/work cannot be written from" in done.stderr
    assert "the file system is read-only" in done.stderr
    assert "Traceback" not in done.stderr


def test_submitting_both(odd: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """With a stand-in for sbatch that answers as one of several clusters does."""
    calls = tmp_path / "calls"
    tool(tmp_path / "bin", "sbatch", f'echo "sbatch $* in $PWD" >>{calls}; echo "17;green"')
    tool(tmp_path / "bin", "scancel", f'echo "scancel $*" >>{calls}')
    tool(tmp_path / "none", "dirname", 'exec /usr/bin/dirname "$@"')
    (tmp_path / "none" / "bash").symlink_to("/bin/bash")
    monkeypatch.setenv("PATH", str(tmp_path / "none"))  # a machine with SLURM must not be asked for real
    code, _, err = cli("slurm", "--submit")
    assert code == 2
    assert "sbatch is not here" in err
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert cli("slurm", "--submit")[0] == 0
    assert calls.read_text().splitlines() == [
        f"sbatch --parsable slurm/array.sbatch in {odd}",
        f"sbatch --parsable --dependency=afterany:17 slurm/finish.sbatch in {odd}",
    ]
    calls.unlink()
    tool(tmp_path / "bin", "scontrol", 'echo "MaxArraySize            = $MOST"')
    monkeypatch.setenv("MOST", "3")  # for four runs
    code, _, err = cli("slurm", "--submit")
    assert (code, calls.exists()) == (2, False)
    assert "4 array tasks, and SLURM here takes 3 (MaxArraySize): twinrun slurm --chunk 2 puts 2 runs into each" in err
    assert cli("slurm", "--submit", "--chunk", "2")[0] == 0
    monkeypatch.setenv("MOST", "4")
    calls.unlink()
    tool(tmp_path / "bin", "sbatch", f"echo x >>{calls}; [[ $* == *array* ]] && echo 18 || {{ echo no >&2; exit 1; }}")
    code, _, err = cli("slurm", "--submit")
    assert code == 2
    assert "sbatch refused slurm/finish.sbatch; the array was cancelled" in err
    assert calls.read_text().splitlines()[-1] == "scancel 18"


def test_an_image_that_is_not_there(odd: Path, cli: Cli) -> None:  # noqa: F811
    code, _, err = cli("slurm", "--image", "none.sif", "--submit")
    assert code == 2
    assert "none.sif: no such image" in err


if __name__ == "__main__":
    for name, script in SCRIPTS.items():
        (GOLDEN / name).write_text(script(JOBS))
