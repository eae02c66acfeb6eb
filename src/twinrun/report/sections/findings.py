"""What the numbers of a study say, in sentences: each carries its number, its n and the table it comes from."""

from __future__ import annotations

import pandas as pd

from twinrun.collect.study import Study
from twinrun.report.names import METRIC_LABELS, NOISE_WORDS, noise_kinds, table_name
from twinrun.report.sections.cautions import cautions
from twinrun.report.table import plural, span
from twinrun.study.grid import ARMS

Frames = dict[str, pd.DataFrame]


def design(study: Study) -> list[str]:
    """What was trained."""
    grid = study.info["grid"]
    sizes = " x ".join(
        plural(len(grid[key]), noun)
        for key, noun in (("tasks", "task"), ("optimizers", "optimizer"), ("seeds", "seed"), ("runs", "run"))
    )
    devices = " and ".join(
        {"cpu": "CPUs", "cuda": "CUDA GPUs"}[device] for device in sorted(set(study.results["device"]))
    )
    return [
        f"The same networks were trained again and again under controlled randomness: {sizes} = "
        f"{plural(len(study.results), 'run')}, on {devices}.",
        "A cell is one task, optimizer and seed. All runs of a cell begin with the same settings and seed; its arms "
        "differ in what is then left free.",
        *(f"{study.title(task)}: {remark}." for task in study.tasks for remark in study.info["tasks"][task]["remarks"]),
    ]


def arms(study: Study) -> list[tuple[str, str]]:
    """Each arm with what is free in it and how many runs it has per cell."""
    words = [NOISE_WORDS[kind] for kind in noise_kinds(study)]
    result = []
    for arm in study.arms:
        count = sum(label.rpartition("_")[0] == arm for label in study.info["grid"]["runs"])
        noise = f" Here: {'; '.join(words)}." if arm in ("nd", "all") and words else ""
        result.append((arm, f"{ARMS[arm]} ({plural(count, 'run')} per cell).{noise}"))
    return result


def determinism(frames: Frames) -> list[str]:
    """Whether deterministic runs agreed, and whether free ones parted."""
    table = frames["determinism"]
    several, none = table[table["n_det"] > 1], table[table["n_det"] == 0]
    equal = int((several["distinct_det"] == 1).sum())
    if len(none) == len(table):
        sentences = ["Not available: this study has no deterministic runs."]
    elif several.empty:
        sentences = [
            "Not verified by this study's own runs: each cell has one deterministic run, and it takes two to compare. "
            "`twinrun verify` trains them again in fresh processes and compares fingerprints; a study with `det_2` "
            "in its grid shows it here."
        ]
    elif equal == len(several):
        where = "the one cell" if equal == 1 else f"all {equal} cells"
        sentences = [f"Yes: in {where} the deterministic runs agree to the last bit."]
    else:
        sentences = [
            f"No: in {len(several) - equal} of {plural(len(several), 'cell')} deterministic runs end with different "
            "bits. Their differences are no property of the arm; find the cause before you read on."
        ]
    free = table[table["n_nd"] > 1]
    if len(free):
        apart = int((free["distinct_nd"] == free["n_nd"]).sum())
        sentences.append(
            f"The nd runs all end with different weights in {apart} of {plural(len(free), 'cell')}"
            + (
                f"; in the median cell they are apart by the end of epoch {int(free['parted_epoch'].median())}."
                if apart
                else "."
            )
        )
    starts = table["same_start"].eq("no").sum()
    if starts:
        sentences.append(f"In {plural(int(starts), 'cell')} det and nd runs do not begin at the same weights.")
    return sentences


def _over(values: pd.Series) -> str:
    """`0.40 to 0.90 over 3 cells`, of one cell only that it is one."""
    return "1 cell" if len(values) == 1 else f"{span(values, '.2f')} over {len(values)} cells"


def results(study: Study, frames: Frames) -> list[str]:
    """Spread and difference of the main metric, task by task, after what makes them say little."""
    sentences = []
    spread = frames["spread"]
    for task in study.tasks:
        sentences += cautions(study, task)
        metric = study.main_metric(task)
        mine = spread[(spread["task"] == task) & (spread["arm"] == "nd") & (spread["metric"] == metric)]
        sds = 100 * mine["sd_sample"].dropna()
        compared = frames[f"performance_{task}"]
        differences = compared.loc[compared["metric"] == metric, "difference_percent"].dropna()
        if sds.empty:
            sentences.append(f"{study.title(task)}: spread not available, no cell has two complete nd runs.")
            continue
        text = (
            f"{study.title(task)}: identical nd runs differ in {METRIC_LABELS[metric]} with a median SD of "
            f"{sds.median():.2f} points ({_over(sds)})"
        )
        if len(differences):
            text += (
                f"; the deterministic run lies {span(differences, '+.2f')} % from their mean "
                f"({table_name(study, task)})"
            )
        sentences.append(text + ".")
    return sentences


def churn(study: Study, frames: Frames) -> list[str]:
    """How often twins disagree, beside how often they err and how often other seeds disagree."""
    table, sentences = frames["churn_arms"], []
    for task in study.tasks:
        mine = table[table["task"] == task]
        twins = mine[(mine["comparison"] == "nd, same seed") & mine["churn"].notna()]
        if twins.empty:
            sentences.append(f"{study.title(task)}: churn not available, no cell has two complete nd runs.")
            continue
        other = mine[mine["comparison"].str.endswith("other seeds") & mine["churn"].notna()]
        images, pairs = plural(study.info["tasks"][task]["n_test"], "test image"), int(twins["pairs"].sum())
        text = (
            f"{study.title(task)}: two nd runs of the same seed disagree on {100 * twins['churn'].mean():.1f} % of the "
            f"{images} ({plural(pairs, 'pair')}), at an error of {100 * twins['error'].mean():.1f} %"
        )
        if len(other):
            labels = " and ".join(dict.fromkeys(other["comparison"].str.removesuffix(", other seeds")))
            text += (
                f"; runs of different seeds disagree on {100 * other['churn'].mean():.1f} % "
                f"({plural(int(other['pairs'].sum()), 'pair')} of {labels} runs)"
            )
        sentences.append(text + ".")
    return sentences


def hidden(study: Study, frames: Frames) -> list[str]:
    """Distance of probabilities, gain of the ensemble and the finite test set's share, task by task."""
    sentences = []
    for task in study.tasks:
        table = frames["hidden"]
        mine = table[(table["task"] == task) & (table["arm"] == "nd") & table["js_distance"].notna()]
        if mine.empty:
            continue
        gain, shares = mine["ensemble_gain"], mine["test_set_share"].dropna()
        text = (
            f"{study.title(task)}: the probabilities of nd twins are apart by a Jensen-Shannon distance of "
            f"{mine['js_distance'].mean():.3f} on average; averaging them changes accuracy by "
            f"{span(gain, '+.2f', 100)} points over {plural(len(mine), 'cell')}"
        )
        if len(shares):
            text += (
                f"; the finite test set makes {shares.median():.2f} of the variance of accuracy in the median cell"
                if shares.median() < 1
                else "; in the median cell accuracy scatters no more than a test set of this size makes it by itself"
            )
        sentences.append(text + ' (table "What accuracy hides").')
    return sentences


def weights(study: Study, frames: Frames) -> list[str]:
    """How similar heads, layers and features are at the last checkpoint."""
    table, sentences = frames["weights"], []
    for task in study.tasks:
        mine = table[(table["task"] == task) & (table["arm"] == "nd") & table["cosine_mean"].notna()]
        if mine.empty:
            sentences.append(f"{study.title(task)}: not available, no cell has two complete nd runs.")
            continue
        last = mine[mine["epoch"] == mine["epoch"].max()]
        sentences.append(
            f"{study.title(task)}: after epoch {int(last['epoch'].iloc[0])} the heads of nd twins have a mean cosine "
            f"similarity of {last['cosine_mean'].mean():.4f}, at the least {last['cosine_min'].min():.4f} "
            f"({plural(len(last), 'cell')})."
        )
        sentences += _layers(study, task, frames)
    return sentences


def _layers(study: Study, task: str, frames: Frames) -> list[str]:
    """How far the layers of twins are apart, in percent of two fresh seeds; and how alike their features are."""
    sentences = []
    layers, features = frames["layers"], frames["features"]
    share = layers.loc[(layers["task"] == task) & (layers["arm"] == "nd"), "distance_percent"].dropna()
    if len(share):
        sentences.append(
            f"{study.title(task)}: at the end nd twins are apart by {share.median():.0f} % of the distance of two "
            f"fresh seeds in the median of {plural(len(share), 'layer')} (parameter tensors, every optimizer; middle "
            f"half {share.quantile(0.25):.0f} to {share.quantile(0.75):.0f} %; "
            'table "Layers of twins beside layers of seeds").'
        )
    mine = features[(features["task"] == task) & features["cka_mean"].notna()]
    twins, seeds = mine[mine["comparison"] == "nd, same seed"], mine[mine["comparison"].str.endswith("other seeds")]
    if len(twins):
        text = f"{study.title(task)}: the features of nd twins have a debiased CKA of {span(twins['cka_mean'], '.2f')}"
        text += f", those of other seeds of {span(seeds['cka_mean'], '.2f')}" if len(seeds) else ""
        shown = 'table "Features of twins beside features of seeds"'
        sentences.append(f"{text} ({plural(len(twins), 'optimizer')}; {shown}).")
    return sentences


def cost(study: Study, frames: Frames) -> list[str]:
    """What may be said of runtime and energy."""
    runtime, footprint = frames["runtime"], frames["footprint"]
    shared, resumed = (int(study.measured[key].astype(str).eq("True").sum()) for key in ("shared", "resumed"))
    known = runtime["overhead_percent"].dropna()
    sentences = ["No cost of deterministic mode is claimed here: whole-run times of single runs are confounded."]
    if shared or resumed:
        sentences.append(
            f"Of {plural(len(study.results), 'run')} {shared} shared {'its' if shared == 1 else 'their'} machine with "
            f"others and {resumed} {'was' if resumed == 1 else 'were'} resumed."
        )
    if shared:
        sentences.append(
            "What runs that share a machine take depends on the others: the differences in table "
            '"Runtime of whole runs" are noise of the machine.'
        )
    elif len(known):
        negative = int((known < 0).sum())
        sentences.append(
            f"The deterministic runs' training time differs from the nd runs' mean by {span(known, '+.1f')} "
            f'%; it is shorter in {negative} of {plural(len(known), "cell")} (table "Runtime of whole runs").'
        )
    total = footprint[footprint["task"] == footprint["task"].iloc[-1]]
    for _, row in total[(total["scope"] == "experiment")].iterrows():
        if pd.notna(row["kwh"]):
            sentences.append(
                f"The experiment's {plural(int(row['runs']), 'run')} took {row['kwh']:.4g} kWh, "
                f"{row['co2_kg']:.4g} kg CO2 ({row['way']}, Table 6.1)."
            )
        else:
            sentences.append(f"Energy ({row['way']}): {row['remark']}.")
    return sentences
