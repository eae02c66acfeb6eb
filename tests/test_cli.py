"""The command line: exit codes, one clear sentence for each mistake, no traceback."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.conftest import REPOSITORY
from tests.warm.start import REAL

import twinrun
from twinrun.cli import app
from twinrun.cli.app import main
from twinrun.fetch import publishers as fetch
from twinrun.study.files import write_json
from twinrun.study.layout import Layout
from twinrun.study.params import read_params
from twinrun.study.records import read_record
from twinrun.twins.tracing import Located

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs `twinrun ARGS` in this process: exit code, output, errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["twinrun", *arguments])
        # A run in this process sets it; with it, `train` would start this process again.
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def process(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twinrun", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


COMMANDS = [
    "data",
    "prepare",
    "plan",
    "train",
    "sweep",
    "slurm",
    "finish",
    "status",
    "collect",
    "analyze",
    "report",
    "verify",
    "doctor",
    "power",
    "cost",
    "reanalyze",
    "twins",
    "export",
]


def test_help_names_every_command(cli: Cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, cli: Cli) -> None:
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert "Usage" in out


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"{twinrun.__version__}\n", "")


def test_plan_lists_the_grid(cli: Cli, study: Layout) -> None:
    code, out, _ = cli("plan", "--ids")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 32
    assert lines[0] == "0\tshapes/adam/0/det_1"
    assert lines[-1] == "31\tcuts/sgd/7/nd_2"


def test_plan_says_what_the_study_is(cli: Cli, study: Layout) -> None:
    code, out, _ = cli("plan")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == ("study tiny: 32 runs = 2 tasks x 2 optimizers x 2 seeds x 4 runs (det_1, det_2, nd_1, nd_2)")
    assert "  classes  4: a, b, c, d; F1 and AUC are means over the classes" in lines
    # The source is looked for where the data are prepared, too.
    source = read_params(study.root / "params.yaml").tasks["shapes"].data.source
    assert f"prepared from {source}, which is not there" in out
    assert "F1 and AUC of the class" in out


def test_plan_names_the_data_that_are_not_there(cli: Cli, study: Layout) -> None:
    shutil.rmtree(study.prepared("cuts"))
    source = read_params(study.root / "params.yaml").tasks["cuts"].data.source
    code, out, err = cli("plan")
    assert code == 2
    assert f"{source}, which is not there; not prepared yet: `twinrun prepare cuts`" in out
    assert err.startswith(f"twinrun: tasks.cuts.data.source: {source}: no such file or folder\n")
    assert "tasks.shapes" not in err  # it is prepared
    (study.root / source).mkdir(parents=True)
    assert cli("plan")[0] == 0


def test_plan_needs_no_torch(study: Layout) -> None:
    script = (
        "import sys; from twinrun.cli.app import main; sys.argv = ['twinrun', 'plan']\ntry:\n    main()\nfinally:\n"
    )
    script += "    print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=study.root, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


def test_plan_of_the_thesis(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("plan", "--ids", "--params", str(REPOSITORY / "studies" / "thesis.yaml"))
    assert code == 2
    assert "tasks.cbis_ddsm.data.source: " in err
    assert len(out.splitlines()) == 180
    assert out.splitlines()[179] == "179\tcbis_ddsm/sgd/180698/nd_5"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "--params", "none.yaml"], ["none.yaml: no such file", "--params"]),
        (["prepare", "shape"], ["'shape'", "shapes, cuts"]),
        (["train"], ["which run?", "--index"]),
        (["train", "shapes/sgd/0/det_9"], ["'shapes/sgd/0/det_9'", "nearest is shapes/sgd/0/det_"]),
        (["train", "--index", "32"], ["--index 32", "0 to 31"]),
        (["train", "--task", "shapes", "--seed", "0"], ["--optimizer, --run is missing"]),
        (["train", "--task", "shapes", "--optimizer", "adm", "--seed", "0", "--run", "det_1"], ["adm"]),
        (["train", "shapes/sgd/0/det_1", "--index", "1"], ["which run?"]),
        (["train", "shapes/sgd/0/det_1", "--stop-after", "1"], ["--stop-after needs --out"]),
        (["train", "shapes/sgd/0/det_1", "--device", "gpu"], ["device 'gpu' is not known", "cpu, cuda or auto"]),
        (["train", "shapes/sgd/0/nd_1", "--replay", "x", "--out", "o"], ["x/record.json: no such file"]),
        (["train", "shapes/sgd/0/nd_1", "--replay", "x"], ["--replay needs --out"]),
        (["train", "shapes/sgd/0/det_1", "--stop-after", "1", "--out", "runs"], ["--stop-after needs --out"]),
        (["train", "shapes/sgd/0/det_1", "--out", ""], ["an empty word after --out", "is a variable not set?"]),
        (["export", "--to", "tensorboard", "--out="], ["an empty word after --out="]),
        (["compare", "", "b"], ["an empty word after compare"]),
        (
            ["compare", "0,912", "0.921"],
            ["0,912 0.921: a decimal comma", "write points: 0.912 0.921"],
        ),
        (["locate", "train.py"], ["train.py, and which other run?", "-- python train.py"]),
        (["import", "prepared"], ["prepared: a folder, but not one that `twinrun twins` made", ".csv"]),
        (["train", "--replay=x="], ["which run?"]),  # a value that ends so
        (["audit", "shapes", "--steps", "3"], ["--steps and shapes", "a program after `--`"]),
        (["audit", "m:f", "--device", "cpu"], ["--device and m:f"]),
        (["audit", "--repeats", "3", "--", "true"], ["--repeats and a program"]),
        (["locate", "a", "b", "--seconds", "3"], ["--seconds and two runs"]),
        (["locate", "--follow", "3", "--", "true"], ["--follow and a program"]),
        (["cost", "shapes", "--link", "x"], ["--link and a task"]),
        (["cost", "--device", "cpu", "--", "true"], ["--device and a program"]),
        (["compare", "a.csv", "--margin", "1e400"], ["--margin is inf", "a difference above 0"]),
        (["power", "--precision", "-1"], ["--precision is -1"]),  # before SDs are looked for
        (["power", "--sd-ratio", "1e400"], ["--sd-ratio is inf"]),
        (["power", "--n", "100000000000"], ["--n is 100000000000", "from 2 to 1,000,000"]),
        (["verify", "--write-expected", "--first"], ["--write-expected"]),
        (["verify", "shapes/sgd/0/det_9"], ["det_9"]),
    ],
)
def test_mistakes_exit_2_with_one_sentence(arguments: list[str], words: list[str], cli: Cli, study: Layout) -> None:
    code, _, err = cli(*arguments)
    assert code == 2
    assert err.startswith("twinrun: ")
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_every_count_has_an_end() -> None:
    """A slip of the hand is refused: it would not fit into memory, or not end."""
    free = {"seed", "index", "images", "runs"}  # no counts, or checked by the command
    endless = {
        (command.name, option.name)
        for command in _commands(typer.main.get_command(app.app))
        for option in command.params
        if option.type_descriptor.annotation is int and option.type_descriptor.parameter_info.max is None
    }
    assert {name for _, name in endless} <= free


def _commands(group: Any) -> Iterator[Any]:
    for command in getattr(group, "commands", {}).values():
        yield command
        yield from _commands(command)


@pytest.mark.parametrize("name", ["params.yaml", "pipe", ".", "config.json", "list.json"])
def test_json_takes_the_place_of_nothing_else(name: str, cli: Cli, study: Layout) -> None:
    os.mkfifo(study.root / "pipe")
    (study.root / "config.json").write_text('{"seed": 1}')
    (study.root / "list.json").write_text("[1]")
    kept = {path: path.read_bytes() for path in study.root.iterdir() if path.is_file()}
    for command in ("audit shapes --json", "forecast shapes --json", "forecast shapes --save", "locate a b --json",
                    "cost shapes --json"):  # fmt: skip
        code, _, err = cli(*command.split(), name)
        assert (code, "nothing was changed" in err) == (2, True)
    assert (study.root / "pipe").is_fifo()
    assert {path: path.read_bytes() for path in kept} == kept


def test_an_earlier_answer_of_locate_may_be_replaced(cli: Cli, study: Layout) -> None:
    write_json(study.root / "earlier.json", asdict(Located(("train.py",), None, 3, ())))
    code, _, err = cli("locate", "a", "b", "--json", "earlier.json")
    assert (code, "nothing was changed" in err) == (2, False)  # a and b are no runs


def test_an_error_that_nobody_can_be_told_has_its_code_all_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "twinrun", "plan"]
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(command, cwd=tmp_path, stderr=full, check=False).returncode == 2


def test_a_name_of_thousands_of_letters_does_not_hide_the_sentence(cli: Cli, study: Layout) -> None:
    code, _, err = cli("plan", "--params", "x" * 5000)
    assert (code, err.startswith(f"twinrun: {100 * 'x'}... (5001 characters) ")) == (2, True)
    assert len(err) < 300


def test_bad_params_stop_everything_before_it_runs(cli: Cli, study: Layout) -> None:
    file = study.root / "params.yaml"
    file.write_text(file.read_text().replace("momentum: 0.9", "momentums: 0.9"))
    for command in (["plan"], ["train", "--index", "0"], ["sweep"], ["status"], ["prepare"], ["verify"], ["collect"]):
        code, _, err = cli(*command)
        assert code == 2
        assert "did you mean 'momentum'" in err
    assert {path.name for path in study.root.iterdir()} == {"params.yaml", "prepared"}


def test_train_three_ways_gives_the_same_run(study: Layout, cli: Cli) -> None:
    """By id, by index and by its parts; the first from a shell whose variables would change the bits."""
    leaky = {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "default", "CUBLAS_WORKSPACE_CONFIG": ":0:0", "PATH": ""}
    command = [sys.executable, "-m", "twinrun", "train", "shapes/adam/7/det_2"]
    done = subprocess.run(command, cwd=study.root, env=leaky, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first = read_record(study.root / "runs/shapes/adam/7/det_2")
    assert done.stdout == f"shapes/adam/7/det_2 complete {first.final_fingerprint}\n"
    assert "epoch 4/4" in done.stderr
    assert cli("train", "--index", "5", "--out", "two")[0] == 0
    parts = ["--task", "shapes", "--optimizer", "adam", "--seed", "7", "--run", "det_2"]
    assert cli("train", *parts, "--out", "three")[0] == 0
    for folder in ("two", "three"):
        assert read_record(study.root / folder / "shapes/adam/7/det_2") == first
        assert [path.name for path in (study.root / folder).iterdir()] == ["shapes"], "the record, and nothing else"


def test_status_counts_and_exits_3(study: Layout, cli: Cli) -> None:
    assert cli("train", "shapes/sgd/0/det_1")[0] == 0
    record = study.root / "runs/shapes/sgd/0/det_1/record.json"
    code, out, err = cli("status")
    assert code == 3
    assert "32 runs: 1 complete, 31 missing" in out
    assert "still to be trained: 31" in err
    assert out.count("\tmissing\n") == 20
    assert "\nand 11 more missing\n" in out
    record.write_text(json.dumps(json.loads(record.read_text()) | {"seed": 1}))
    assert "shapes/sgd/0/det_1\tdamaged" in cli("status")[1]


def test_a_folder_that_is_no_study(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("sweep")
    assert code == 2
    assert "params.yaml: no such file" in err
    code, out, _ = cli("doctor")
    assert code == 2
    assert "this is not a study folder" in out


def test_home_unset(study: Layout) -> None:
    command = [sys.executable, "-m", "twinrun", "train", "shapes/sgd/0/det_1"]
    done = subprocess.run(command, cwd=study.root, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def isolated(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in `folder` with mounts of its own."""
    return subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-ec", script],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_disk_full(study: Layout) -> None:
    """A file system of 4 MB: a clear sentence, no half-written record, and with more space the run goes on."""
    train = f"{sys.executable} -m twinrun train shapes/sgd/0/det_1 --out out"
    script = f"""
        mkdir out
        mount -t tmpfs -o size=4m tmpfs out
        head -c 4161536 /dev/zero > out/filler
        {train} || echo code $?
        test ! -e out/shapes/sgd/0/det_1
        rm out/filler
        {train}
    """
    done = isolated(study.root, script)
    assert "the disk is full" in done.stderr
    assert "free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first == "code 2"
    assert last.startswith("shapes/sgd/0/det_1 complete ")


def test_read_only_folder(study: Layout) -> None:
    root = shlex.quote(str(study.root))
    script = f"""
        cd /
        mount --bind {root} {root}
        mount -o remount,ro,bind {root}
        cd {root}
        {sys.executable} -m twinrun train --index 0
    """
    done = isolated(study.root, script)
    assert done.returncode == 2
    assert "the file system is read-only\n  run in a folder that can be written\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_fetch_says_what_it_did(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = cli("data", "fetch", "imagenet")
    assert code == 2
    assert "'imagenet' is no data set" in errors
    assert "cifar10, sdnet2018, weights, cbis-ddsm" in errors
    with tarfile.open("mine.tar.gz", "w:gz"):
        pass
    code, _, errors = cli("data", "fetch", "cifar10", "--from", "mine.tar.gz")
    assert code == 4
    assert "but its publisher says c58f30108f718f92721af3b95e74349a" in errors
    assert list(Path("data").iterdir()) == []
    remote = fetch.Remote("https://invalid.invalid/", "cifar-10-python.tar.gz")
    monkeypatch.setitem(fetch.FILES, "cifar10", (remote,))
    code, output, errors = cli("data", "fetch", "cifar10", "--from", "mine.tar.gz")
    assert (code, errors) == (0, "")
    assert output.startswith("data/cifar-10-python.tar.gz\n")
    assert "not put under DVC: this is no study folder" in output


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sweep --jobs 2", "interrupted; what was finished is kept, and the same command goes on"),
        ("data fetch cifar10", "interrupted; what was finished is kept, and the same command goes on"),
        (
            "cost --json=cost.json -- python x.py",
            "interrupted; what was finished is kept, and the same command goes on",
        ),
        ("cost -- python x.py --json y", "interrupted"),
        ("verify --first", "interrupted"),
        ("power", "interrupted"),
    ],
)
def test_an_interrupt_promises_only_what_is_true(command: str, said: str, tmp_path: Path) -> None:
    words = ["twinrun", *command.split()]
    script = "import sys; import twinrun.cli.app as cli\ncli.app = lambda: sys.exit(130); sys.argv = "
    done = subprocess.run(
        [sys.executable, "-c", f"{script}{words}; cli.main()"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, f"twinrun: {said}\n")


def test_a_limit_that_pytorch_does_not_fit_into_is_want_of_memory(study: Layout) -> None:
    """Its libraries are then not mapped, which is an ImportError; a sweep tries fewer runs at a time at exit 6."""
    command = [REAL, "-m", "twinrun", "train", "shapes/sgd/0/det_1"]
    limited = ["bash", "-c", 'ulimit -v 600000; exec "$@"', "bash", *command]
    done = subprocess.run(limited, cwd=study.root, capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert re.fullmatch(r"twinrun: out of memory: libtorch\w*\.so: .*\n  raise the limit .*\n", done.stderr)


@pytest.mark.parametrize("limit", ["-v 330000", "-d 140000"])
def test_a_limit_in_which_a_library_would_ask_for_memory_for_ever_is_want_of_memory(limit: str, tmp_path: Path) -> None:
    command = [REAL, "-m", "twinrun", "power", "--sd", "0.01", "--difference", "0.02"]
    limited = ["bash", "-c", f'ulimit {limit}; exec "$@"', "bash", *command]
    done = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 6
    assert re.fullmatch(
        r"twinrun: out of memory: (numpy|scipy) needs \d+ MiB of address space, \d+ of .*\n  raise .*\n", done.stderr
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), 6),
        (ImportError("x.so: cannot map zero-fill pages"), 6),
        (ImportError("x"), 0),
        (RuntimeError("can't start new thread"), 6),
        (RuntimeError("x"), 0),
    ],
)
def test_of_errors_without_a_name_only_want_of_memory_has_one(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(SystemExit if code else type(error)) as caught:
        app.main()
    assert getattr(caught.value, "code", 0) == code
    assert capsys.readouterr().err.startswith("twinrun: out of memory") == bool(code)


def test_a_name_that_a_library_cannot_write_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "app", lambda: "a\udcff".encode())
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("twinrun: 'a\\udcff': a name that is not UTF-8\n  ")


def test_what_a_stream_cannot_write_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    monkeypatch.setattr(app, "app", lambda: print("mod\u00e8le"))
    app.main()
    assert written.getvalue() == b"mod\\xe8le\n"


def test_only_bytes_that_are_no_utf_8_are_a_bad_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "app", lambda: "mod\u00e8le".encode("ascii"))
    with pytest.raises(UnicodeEncodeError):
        app.main()


@pytest.mark.parametrize("command", ["import", "compare"])
def test_a_table_that_is_a_pipe_is_refused_and_not_waited_for(command: str, cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    code, _, err = cli(command, str(tmp_path / "t.csv"), *(["a", "b"] if command == "compare" else []))
    assert code == 2
    assert "t.csv: a pipe or a device, no file" in err


def test_a_report_of_another_study_says_so(cli: Cli, study: Layout) -> None:
    study.collected.mkdir()
    (study.collected / "study.json").write_text(json.dumps({"study": "older", "grid_digest": "0" * 64}))
    _, _, said = cli("analyze")
    assert "collected/ holds the study 'older', and params.yaml describes the study 'tiny': this shows what was" in said
    (study.collected / "study.json").write_text(json.dumps({"study": "tiny", "grid_digest": "0" * 64}))
    _, _, said = cli("analyze")
    assert "params.yaml no longer has the params that collected/ was collected with: this shows what was" in said
    (study.collected / "study.json").write_text("{")
    _, _, said = cli("analyze")
    assert said.count("study.json") == 1
    assert "run `twinrun collect` (or `twinrun import`) again" in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["locate", "python3", "train.py"], "twinrun locate -- python3 train.py"),
        (["audit", "train.py"], "twinrun audit -- python train.py"),
    ],
)
def test_a_program_without_the_two_dashes_is_told_of_them(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    code, _, said = cli(*words)
    assert code == 2
    assert hint in said


def test_the_shells_completion_is_installed_and_completes(tmp_path: Path) -> None:
    program = Path(sys.prefix) / "bin" / "twinrun"
    script = f"{shlex.quote(str(program))} --install-completion; exit $?"  # the shell that asks is the one that gets it
    done = subprocess.run(
        ["bash", "-c", script], env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    question = (
        f"PATH={shlex.quote(str(program.parent))}:$PATH; . {tmp_path}/.bashrc; COMP_WORDS=(twinrun pla); COMP_CWORD=1; "
        '_twinrun_completion twinrun; echo "${COMPREPLY[@]}"'
    )
    answered = subprocess.run(["bash", "-c", question], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
                              capture_output=True, text=True, check=True)  # fmt: skip
    assert answered.stdout == "plan\n"


def test_what_cannot_be_packed_here_names_the_command(cli: Cli, study: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(study.prepared("shapes"))
    monkeypatch.setattr(
        "os.access", lambda path, mode, **_: mode != os.W_OK
    )  # as in a study that is mounted to be read
    code, _, said = cli("train", "shapes/sgd/0/det_1", "--out", "elsewhere")
    assert code == 3
    assert said.startswith(
        "twinrun: shapes is not prepared, and the study folder cannot be written\n  `twinrun prepare shapes`"
    )
