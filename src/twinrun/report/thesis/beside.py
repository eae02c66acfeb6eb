"""The thesis's published numbers beside the study's, for tasks whose data have the same format."""

from __future__ import annotations

from typing import Any

import pandas as pd

from twinrun.collect.study import Study
from twinrun.report.names import network
from twinrun.report.sections.footprint import carbon_kg
from twinrun.report.table import Table, remarks
from twinrun.report.thesis.tables import thesis_frame
from twinrun.stats.describe import difference_percent

_DATA_SETS = {
    "cifar10": "CIFAR-10, PreActResNet",
    "sdnet2018": "SDNET2018, MobileNet",
    "cbis_ddsm": "CBIS-DDSM, ResNet fine-tuned from ImageNet weights",
}


def published_performance() -> pd.DataFrame:
    """Tables 5.1-5.3 as published: task (as a reader's name), metric, seed, optimizer, means; shares in [0, 1]."""
    frame = thesis_frame("tables_5_1_to_5_3_and_5_5")
    for name in ("nondeterministic_mean", "deterministic", "difference_percent", "seed"):
        frame[name] = pd.to_numeric(frame[name])
    percent = frame["metric"].str.endswith("_percent")
    for name in ("nondeterministic_mean", "deterministic"):
        # Rounded: 92.66 / 100 is not the number that 0.9266 reads as.
        frame[name] = frame[name].where(~percent, (frame[name] / 100).round(6))
    frame["metric"] = frame["metric"].str.removesuffix("_percent")
    return frame


def thesis_table(study: Study, performance: dict[str, pd.DataFrame]) -> Table:
    """The thesis's cells of every corresponding task beside the study's; `performance` holds Tables 5.1-5.3 by task."""
    published = published_performance()
    rows: list[dict[str, Any]] = []
    notes = []
    for task in study.tasks:
        reader = str(study.info["params"][task]["data"]["reader"])
        theirs = published[published["task"] == reader]
        if theirs.empty:
            continue
        notes.append(
            f"{study.title(task)} is read as {reader} is; the thesis trained {_DATA_SETS[reader]}, this study "
            f"{network(study.info['params'][task]['model'])} on "
            f"{study.info['tasks'][task]['n_train']} images: other data or networks give other numbers."
        )
        ours = performance[task].set_index(["metric", "optimizer", "seed"])
        for _, row in theirs.iterrows():
            key: Any = (row["metric"], row["optimizer"], int(row["seed"]))
            mine = ours.loc[key] if key in ours.index else None
            recomputed = difference_percent(float(row["deterministic"]), float(row["nondeterministic_mean"]))
            wrong = abs(recomputed - float(row["difference_percent"])) > 0.02
            rows.append(
                {
                    "task": task,
                    "metric": row["metric"],
                    "optimizer": row["optimizer"],
                    "seed": int(row["seed"]),
                    "thesis_nd": float(row["nondeterministic_mean"]),
                    "mean_nd": mine["mean_nd"] if mine is not None else None,
                    "thesis_det": float(row["deterministic"]),
                    "det": mine["det"] if mine is not None else None,
                    "thesis_difference": float(row["difference_percent"]),
                    "difference_percent": mine["difference_percent"] if mine is not None else None,
                    "remark": remarks(
                        "" if mine is not None else "this cell is not in this study",
                        f"the printed means give {recomputed:+.3f} %" if wrong else "",
                    ),
                }
            )
    columns = [
        "task", "metric", "optimizer", "seed", "thesis_nd", "mean_nd", "thesis_det", "det", "thesis_difference",
        "difference_percent", "remark",
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("mean_nd", "det", "difference_percent"):
        frame[name] = frame[name].astype(float)
    return Table(
        name="thesis",
        thesis_name="Tables 5.1-5.3 as published",
        title="The thesis's numbers beside this study's",
        caption=(
            "The thesis's means of five free runs, its single deterministic run and its printed difference, beside "
            "the same cells of this study. Metrics in [0, 1]. Only tasks whose data are read by the same reader."
        ),
        frame=frame,
        notes=tuple(notes) or ("No task of this study is read as one of the thesis's is.",),
    )


def summary_notes(study: Study) -> tuple[str, ...]:
    """Table 5.4 as published, a note for each task that is read as one of the thesis's is."""
    published = thesis_frame("table_5_4").set_index("task")
    notes = []
    for task in study.tasks:
        reader = str(study.info["params"][task]["data"]["reader"])
        if reader in published.index:
            row = published.loc[reader]
            notes.append(
                f"The thesis's Table 5.4 for {_DATA_SETS[reader]}, {str(row['metric']).replace('_', ' ')}: smallest "
                f"{row['minimum']}, mean {row['mean']}, largest {row['maximum']}."
            )
    return tuple(notes)


def footprint_notes() -> tuple[str, ...]:
    """Table 6.1 as published, its kWh times its intensity beside the printed CO2."""
    notes = []
    for _, row in thesis_frame("table_6_1").iterrows():
        kwh, intensity, printed = (float(row[key]) for key in ("sum_kwh", "carbon_intensity_kg_per_kwh", "co2_kg"))
        right = carbon_kg(kwh, intensity)
        wrong = f"; {kwh:g} x {intensity:g} is {right:.2f} kg" if abs(right - printed) > 0.01 else ""
        notes.append(f"The thesis's Table 6.1, {row['runs']} runs: {kwh:g} kWh, {printed:g} kg CO2 as printed{wrong}.")
    return tuple(notes)
