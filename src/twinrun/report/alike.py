"""Runs that should differ and do not: what was left free changes nothing. As much a finding as the opposite."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from twinrun.collect.study import Group
from twinrun.report.section import Draft
from twinrun.stats.churn import predicted_classes
from twinrun.study.errors import plural

FREE = {"nd": "the noise", "ulp": "the last bit of a weight", "all": "seed and noise together"}
ADVICE = "A spread of 0 here says nothing about training: find out why before you read on."


def findings(draft: Draft) -> list[str]:
    """A caution for each task and arm whose free runs have one fingerprint or one set of predictions."""
    tasks = draft.study.tasks
    return [line for task in tasks for line in (*_arms(draft, task), *_repeated(draft, task), *_seeds(draft, task))]


def _arms(draft: Draft, task: str) -> Iterator[str]:
    study = draft.study
    for arm, what in FREE.items():
        groups = [group for group in study.groups(arm, task=task) if group.n > 1]
        if not groups:
            continue
        who = f"{study.title(task)}: caution, {what} {'change' if arm == 'all' else 'changes'}"
        cells = f"the {arm} runs of each of {plural(len(groups), 'cell')}"
        if study.records("weights") and all(len(set(_fingerprints(group))) == 1 for group in groups):
            yield f"{who} nothing: {cells} have one fingerprint. {ADVICE}"
        elif study.records("predictions") and not any(agreement.flips.any() for agreement in draft.agreed(task, arm)):
            yield (
                f"{who} no prediction: {cells} name the same class for each of "
                f"{plural(len(study.labels(task)), 'test image')}"
                f"{', though their weights differ' if study.records('weights') else ''}. {ADVICE}"
            )


def _repeated(draft: Draft, task: str) -> Iterator[str]:
    """Two runs that drew different noise and ended with the same bits, among others that differ."""
    study, cells, least = draft.study, 0, False
    if not study.records("weights"):
        return
    for group in study.groups("nd", "ulp", "all", task=task):
        prints = _fingerprints(group)
        entropies = study.column("entropy")[group.complete]
        drawn = {(str(a), b) for a, b in zip(entropies, prints, strict=True) if isinstance(a, str) and a}
        least |= len(set(prints)) > 1
        cells += len({b for _, b in drawn}) < len(drawn)
    if cells and least:
        yield (
            f"{study.title(task)}: caution, in {plural(cells, 'cell')} free runs with different entropy ended with one "
            "fingerprint, though others differ."
        )


def _seeds(draft: Draft, task: str) -> Iterator[str]:
    """One run of each seed, whose seeds change nothing in any optimizer."""
    study, same = draft.study, []
    if not study.records("predictions"):
        return
    several = [rows for setting in study.settings(task) if len(rows := setting.one_run_a_seed[1]) > 1]
    places = study.results[study.results["task"] == task]
    for rows in several:
        if places[places["row"].isin(rows)]["fingerprint"].nunique() == 1:
            same.append("ended with one fingerprint")
            continue
        predicted = map(predicted_classes, study.stream(task, rows))
        first = next(predicted)
        alike = all(np.array_equal(first, other) for other in predicted)
        same.append("name the same class for each test image" if alike else "")
    if several and all(same):
        yield (
            f"{study.title(task)}: caution, the seed changes nothing: runs of {len(several[0])} seeds "
            f"{' or '.join(dict.fromkeys(same))}, with every optimizer. {ADVICE}"
        )


def _fingerprints(group: Group) -> list[str]:
    return [str(text) for text in group.study.column("fingerprint")[group.complete]]
