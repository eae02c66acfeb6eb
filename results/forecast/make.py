"""Forecasts for the thesis's three networks on all known cards: tables, predictions layer by layer, figure."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

from twinrun.inspect.cudnn.backend import version_name
from twinrun.inspect.cudnn.devices import Card, find_card, known_cards, sourced
from twinrun.inspect.cudnn.forecast import SETTINGS, Forecast, Setting, forecast, verdict
from twinrun.inspect.cudnn.operations import Step
from twinrun.inspect.targets import step_of_task
from twinrun.report.style import style
from twinrun.study.files import write_json
from twinrun.study.layout import Layout
from twinrun.study.params import read_params

PREDICTED = ("RTX A6000", "H100 SXM", "H200")  # the thesis's card, and those that the project may be lent
SHOWN = [Setting("fp32", "NCHW"), Setting("tf32", "NCHW"), Setting("bf16", "NHWC")]
LABELS = {"preactresnet18": "PreAct-\nResNet18", "mobilenet_v3_large": "MobileNet\nV3-large", "resnet18": "ResNet18"}
# Another value for each that cuDNN reads of a card; the name, the numbers of devices and the limits of a grid are left.
OTHER = {
    "multiProcessorCount": 60, "totalGlobalMem": 8 << 30, "l2CacheSize": 1 << 20, "smClockRateKHz": 900_000,
    "memClockRateKHz": 900_000, "maxSharedMemoryPerBlockOptin": 65_536, "maxSharedMemoryPerBlock": 32_768,
    "reservedSharedMemoryPerBlock": 0, "maxThreadsPerSM": 1_024, "maxCtasPerSM": 8, "maxThreadsPerBlock": 512,
    "maxRegistersPerSM": 32_768, "regsPerBlock": 32_768, "warpSize": 64, "driverVer": 12_080, "isTccDriver": 1,
    "supportCoopLaunch": 0, "pciDeviceId": 77, "deviceName": "another", "deviceVer": 800,
}  # fmt: skip


def main(out: Path) -> None:
    params = read_params(Path("studies/thesis.yaml"))
    steps = {task: step_of_task(params, task, Layout(), None, None) for task in params.grid.tasks}
    models = {task: str(params.tasks[task].model.name) for task in steps}
    results = {
        (task, card, setting): forecast(step, find_card(card), setting)
        for task, step in steps.items()
        for card in known_cards()
        for setting in SETTINGS
    }
    write_csv(out / "forecast.csv", (summary(models[key[0]], steps[key[0]], r) for key, r in results.items()))
    write_csv(
        out / "predictions.csv",
        (row for (task, card, _), r in results.items() if card in PREDICTED for row in layers(models[task], r)),
    )
    write_csv(out / "sensitivity.csv", sensitivity(steps["cifar10"]))
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    write_json(out / "made.json", {"torch": torch.__version__, "cudnn": version_name(), "code_commit": head})
    draw(out / "forecast.png", list(steps), models, results)


def summary(model: str, step: Step, result: Forecast) -> dict[str, Any]:
    empty = bool(result.unsupported)
    return {
        "model": model, "card": result.card, "precision": result.setting.precision, "layout": result.setting.layout,
        "convolutions": "" if empty else len(result.rows), "calls": "" if empty else len(step.convolutions),
        "nondeterministic": "" if empty else result.count("nondeterministic"),
        "nondeterministic_calls": "" if empty else result.calls("nondeterministic"),
        "autotuning_may": "" if empty else result.count("autotuned"),
        "other_operations": len(step.others),
        "without_deterministic_engine": "" if empty else result.without_deterministic_engine(),
        "free_workspace_bytes": "" if empty else result.workspace_bytes("free"),
        "deterministic_workspace_bytes": "" if empty else result.workspace_bytes("deterministic"),
        "verdict": verdict(step, result),
    }  # fmt: skip


def layers(model: str, result: Forecast) -> Iterable[dict[str, Any]]:
    for row in result.rows:
        free, fixed = row.answer.free, row.answer.deterministic
        yield {
            "model": model, "card": result.card, "precision": result.setting.precision,
            "layout": result.setting.layout, "operation": row.convolution.operation, "layers": " ".join(row.layers),
            "kernel": row.answer.kernel, "free_engine": free.engine if free else "",
            "free_notes": ", ".join(free.notes) if free else "",
            "deterministic_engine": fixed.engine if fixed else "",
            "autotuning_may_be_nondeterministic": row.answer.autotuned if free else "",
        }  # fmt: skip


def sensitivity(step: Step) -> Iterable[dict[str, Any]]:
    """How many first choices, free or deterministic, change with one value of the description."""
    for name in ("RTX A6000", "H100 SXM"):
        card = find_card(name)
        base = choices(step, card)
        for key, other in OTHER.items():
            changed = choices(step, Card(name, card.description | {key: other}))
            yield {
                "card": name, "value": key, "from": card.description[key], "to": other,
                "choices": len(base), "changed": sum(a != b for a, b in zip(base, changed, strict=True)),
                "source": sourced(name)[key][1],
            }  # fmt: skip


def choices(step: Step, card: Card) -> list[int | None]:
    answers = [row.answer for setting in SHOWN for row in forecast(step, card, setting).rows]
    return [choice.engine if choice else None for answer in answers for choice in (answer.free, answer.deterministic)]


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(path: Path, tasks: list[str], models: dict[str, str], results: dict[Any, Forecast]) -> None:
    cards = known_cards()
    with style():
        figure, panels = plt.subplots(1, len(SHOWN), figsize=(7.6, 4.6), sharey=True, layout="constrained")
        for axes, setting in zip(panels, SHOWN, strict=True):
            shown = [[results[task, card, setting] for task in tasks] for card in cards]
            shares = [[share(r) for r in row] for row in shown]
            image = axes.imshow(shares, cmap="YlOrRd", vmin=0, vmax=0.6, aspect="auto")
            for i, row in enumerate(shown):
                for j, result in enumerate(row):
                    text = "none\nthere" if result.unsupported else str(result.count("nondeterministic"))
                    dark = shares[i][j] > 0.4
                    axes.text(j, i, text, ha="center", va="center", fontsize=6.5 if result.unsupported else 8.5,
                              color="white" if dark else "black", linespacing=0.8)  # fmt: skip
            axes.set(title=str(setting))
            axes.set_xticks(range(len(tasks)), [LABELS[models[task]] for task in tasks], fontsize=7)
            axes.set_yticks(range(len(cards)), cards)
            axes.grid(visible=False)
            axes.tick_params(length=0)
        bar = figure.colorbar(image, ax=panels, shrink=0.7, extend="max")
        bar.set_label("share of distinct convolutions; numbers count them", fontsize=8)
        figure.savefig(path, dpi=200, metadata={"Software": None})
    plt.close(figure)


def share(result: Forecast) -> float:
    return float("nan") if result.unsupported else result.count("nondeterministic") / len(result.rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
