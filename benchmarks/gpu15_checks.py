"""What benchmarks/gpu15.py runs on a card, one check a call; each prints one line at the end and leaves JSON.

python benchmarks/gpu15_checks.py machine|determinism|resume|energy|engines FOLDER [--device cuda] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from itertools import islice, product
from pathlib import Path
from typing import Any

from twinrun.study.files import write_json
from twinrun.study.layout import Layout
from twinrun.study.params import read_params
from twinrun.study.pins import clean_environment
from twinrun.study.records import read_measured, read_record

STUDY = Path(__file__).with_name("gpu_study.py")
PREDICTIONS = Path(__file__).parents[1] / "results" / "forecast" / "predictions.csv"
MODELS = {"preactresnet18": (128, 32), "mobilenet_v3_large": (64, 256), "resnet18": (16, 1024)}  # as predicted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.out or arguments.folder).mkdir(parents=True, exist_ok=True)
    CHECKS[arguments.check](arguments.folder, arguments.device, arguments.out or arguments.folder)


def machine(folder: Path, device: str, out: Path) -> None:
    """What this machine is, the card's own description, and the forecast with it against the committed predictions."""
    try:
        done = subprocess.run(["nvidia-smi", "-q"], capture_output=True, text=True, check=False, timeout=15)
        (out / "nvidia-smi.txt").write_text(done.stdout + done.stderr)
    except (OSError, subprocess.TimeoutExpired) as error:
        (out / "nvidia-smi.txt").write_text(f"{error}\n")
    packages = sorted(f"{found.metadata['Name']}=={found.version}" for found in distributions())
    (out / "packages.txt").write_text("\n".join(packages) + "\n")
    card = "here" if device == "cuda" else "H100 SXM"
    differing = counted = 0
    predicted = {key(row): row for row in csv.DictReader(PREDICTIONS.open())}
    chosen = MODELS if device == "cuda" else {"preactresnet18": MODELS["preactresnet18"]}
    twinrun_at_once([
        ["forecast", model, "--gpu", card, "--batch-size", str(batch), "--image-size", str(side),
         "--json", str(out / f"forecast_{model}.json"), "--save", str(out / "card.json")]
        for model, (batch, side) in chosen.items()
    ])  # fmt: skip
    for model in chosen:
        file = out / f"forecast_{model}.json"
        near = "H200" if "H200" in json.loads((out / "card.json").read_text())["deviceName"] else "H100 SXM"
        for made in json.loads(file.read_text())["forecasts"]:
            for row in made["rows"]:
                setting = (model, near, made["precision"], made["layout"], row["operation"], " ".join(row["layers"]))
                if setting in predicted:
                    engines = [str(row[mode]["engine"]) if row[mode] else "" for mode in ("free", "deterministic")]
                    said = predicted[setting]
                    differing += engines != [said["free_engine"], said["deterministic_engine"]]
                    counted += 1
    write_json(out / "forecast_against_predictions.json", {"choices": counted, "differ": differing})
    print(f"forecast by the card's own description: {differing} of {counted} convolutions differ from the predictions")


def key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("model", "card", "precision", "layout", "operation", "layers"))


def determinism(folder: Path, device: str, out: Path) -> None:
    """Deterministic runs must agree in fresh processes; whether free ones do is recorded."""
    small = device == "cpu"
    settings = [("fp32", False)] if small else list(product(("fp32", "tf32", "bf16"), (False, True)))
    rows: list[dict[str, Any]] = []
    jobs = (
        2 if small else 14
    )  # at a time: autotuning is timed beside the others, so that free runs vary more than alone
    for precision, last in settings:
        study = folder / f"{precision}_{'nhwc' if last else 'nchw'}"
        if not (study / "params.yaml").exists():
            options = ["--precision", precision, *(["--channels-last"] if last else []), "--device", device]
            options += ["--labels", "det_1", "det_2", "nd_1", "nd_2", "--epochs", "2", "--side", "32"]
            options += ["--task", "preactresnet18", "--images", "32"] if small else [
                "--optimizers", "sgd", "adam", "--images", "1024"]  # fmt: skip
            subprocess.run([sys.executable, STUDY, study, *options], check=True)
        twinrun(study, "sweep", "--no-record", "--jobs", str(jobs))
        rows += [row | {"jobs": jobs} for row in compare(study, precision, "NHWC" if last else "NCHW")]
        write_json(out / "determinism.json", rows)
    det, free = (sum(row[name] for row in rows) for name in ("deterministic_equal", "free_equal"))
    print(f"{len(rows)} cells: deterministic runs agree in {det}, free ones in {free}")
    sys.exit(0 if det == len(rows) else 4)


def compare(study: Path, precision: str, layout: str) -> list[dict[str, Any]]:
    params = read_params(study / "params.yaml")
    prints: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
    for run in params.runs:
        record = read_record(Layout(study).run(run))
        prints.setdefault((run.task, run.optimizer), {})[run.id.rpartition("/")[2]] = tuple(record.fingerprints)
    return [
        {"model": task, "optimizer": optimizer, "precision": precision, "layout": layout,
         "deterministic_equal": found["det_1"] == found["det_2"], "free_equal": found["nd_1"] == found["nd_2"]}
        for (task, optimizer), found in prints.items()
    ]  # fmt: skip


def resume(folder: Path, device: str, out: Path) -> None:
    """A deterministic run that is killed after its first checkpoint ends with the bits of one that is not."""
    options = ["--device", device, "--task", "preactresnet18", "--labels", "det_1", "det_2"]
    options += ["--images", "64", "--epochs", "40"] if device == "cpu" else ["--images", "1024", "--epochs", "150"]
    subprocess.run([sys.executable, STUDY, folder, *options], check=True)
    params, layout = read_params(folder / "params.yaml"), Layout(folder)
    whole, broken = params.runs
    twinrun(folder, "train", whole.id)
    if not (layout.run(broken) / "record.json").exists():
        command = [sys.executable, "-m", "twinrun", "train", broken.id]
        process = subprocess.Popen(command, cwd=folder, env=clean_environment())
        checkpoint = layout.work(broken) / "checkpoint.safetensors"
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.02)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        twinrun(folder, "train", broken.id)
    first, second = (read_record(layout.run(run)) for run in (whole, broken))
    facts = {"equal": first.fingerprints == second.fingerprints, "resumed": read_measured(layout.run(broken)).resumed}
    write_json(out / "resume.json", facts)
    print(f"killed and resumed: {facts['resumed']}; same bits: {facts['equal']}")
    if not facts["resumed"]:
        sys.exit("the run ended before its first checkpoint: give it more epochs, and remove its folder")
    sys.exit(0 if facts["equal"] else 4)


def energy(folder: Path, device: str, out: Path) -> None:
    """A deterministic and two free runs, each alone on the card: energy, and whether free runs differ there, too."""
    options = ["--device", device, "--task", "preactresnet18", "--labels", "det_1", "nd_1", "nd_2"]
    options += ["--images", "32"] if device == "cpu" else ["--epochs", "6"]
    subprocess.run([sys.executable, STUDY, folder, *options], check=True)
    params, layout = read_params(folder / "params.yaml"), Layout(folder)
    facts: dict[str, Any] = {}
    for run in params.runs:
        twinrun(folder, "train", run.id)
        measured, record = read_measured(layout.run(run)), read_record(layout.run(run))
        facts[run.id.rpartition("/")[2]] = {"energy_joules": measured.energy_joules,
            "energy_note": measured.energy_note, "fingerprint": record.final_fingerprint}  # fmt: skip
    equal = facts["nd_1"]["fingerprint"] == facts["nd_2"]["fingerprint"]
    write_json(out / "energy.json", facts | {"free_equal_alone": equal})
    joules = ", ".join(f"{label} {fact['energy_joules']} J" for label, fact in facts.items())
    print(f"{joules}; free runs alone on the card {'are equal' if equal else 'differ'}")


def engines(folder: Path, device: str, out: Path) -> None:
    """The engines that cuDNN executed, by its own log, against the forecast with the card's own description."""
    from cudnn_log import against, executed, logging

    from twinrun.inspect.cudnn.devices import find_card
    from twinrun.inspect.cudnn.forecast import Setting, forecast
    from twinrun.inspect.targets import CLASSES, step_of_model
    from twinrun.study.schema_model import ModelSpec

    small = device == "cpu"
    card = find_card(str(out.parent / "machine" / "card.json"))
    settings = ["tf32 NCHW"] if small else ["tf32 NCHW", "bf16 NHWC", "fp32 NCHW", "tf32 NHWC"]
    models = {"preactresnet18": MODELS["preactresnet18"]} if small else MODELS
    rungs = {"ordinary": "free", "fingerprints": "deterministic"} if small else {
        "benchmark_off": "free", "deterministic_algorithms": "deterministic", "free": "autotuned"}  # fmt: skip
    rows: list[dict[str, Any]] = []
    for setting in settings:
        precision, layout = setting.split()
        commands, logs = [], {}
        for model in models:
            study = folder / f"{model}_{precision}_{layout.lower()}"
            options = ["--precision", precision, *(["--channels-last"] if layout == "NHWC" else [])]
            subprocess.run([sys.executable, STUDY, study, "--device", device, "--task", model, *options], check=True)
            for rung in rungs:
                log = logs[model, rung] = study / f"{rung}.log"
                log.unlink(missing_ok=True)
                words = ["probe", f"{model}/sgd/0/det_1", "--rung", rung, "--seconds", "0", "--warmup", "0"]
                commands.append((study, [*words, "--device", device], logging(log)))
        with ThreadPoolExecutor(9) as pool:
            list(pool.map(lambda command: twinrun(command[0], *command[1], **command[2]), commands))
        for (model, rung), log in logs.items():
            batch, side = models[model]
            step = step_of_model(ModelSpec(name=model), CLASSES, batch, side, Path())
            mode = "free" if rungs[rung] == "autotuned" else rungs[rung]
            most = (60 if rungs[rung] == "autotuned" else 3) * len(
                step.convolutions
            )  # a few steps are enough, and logs are long
            with (log if log.exists() else Path(os.devnull)).open() as lines:
                found = against(forecast(step, card, Setting(precision, layout)), islice(executed(lines), most), mode)
            rows += [{"model": model, "setting": setting} | row | {"mode": rungs[rung]} for row in found]
            log.unlink(missing_ok=True)  # they are large
        write_json(out / "engines.json", rows)
    ran = {mode: [row for row in rows if row["mode"] == mode and row["executed"]] for mode in rungs.values()}
    counts = [f"{mode} {sum(row['as_forecast'] for row in found)} of {len(found)}"
              for mode, found in ran.items() if mode != "autotuned"]  # fmt: skip
    tuned = sum(row["nondeterministic_executed"] for row in ran.get("autotuned", []))
    forecasts = len(rows) // len(rungs)
    print(
        f"executed as forecast: {', '.join(counts)}, of {forecasts} forecast; nondeterministic by autotuning: {tuned}"
    )


CHECKS = {"machine": machine, "determinism": determinism, "resume": resume, "energy": energy, "engines": engines}


def twinrun(folder: Path, *words: str, **environment: str) -> None:
    """Run a command of twinrun's in `folder`; its failure is this check's."""
    command = [sys.executable, "-m", "twinrun", *words]
    done = subprocess.run(command, cwd=folder, env=clean_environment() | environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def twinrun_at_once(commands: list[list[str]]) -> None:
    """Run several commands of twinrun's at the same time."""
    with ThreadPoolExecutor(len(commands)) as pool:
        list(pool.map(lambda words: twinrun(Path(), *words), commands))


if __name__ == "__main__":
    main()
