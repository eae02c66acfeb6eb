"""Twins run and judged: what `twinrun twins` and the fixture of the pytest plugin do."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from twinrun.study.errors import InputError
from twinrun.twins import arms
from twinrun.twins.comparing import ABSENT, PRINTED, FileResult, compare_files, self_test
from twinrun.twins.metrics import MetricResult, compare_metric
from twinrun.twins.reporting import Result
from twinrun.twins.running import Plan, Twin, run_twins


def run_and_judge(
    plan: Plan,
    arm: str,
    seed: int,
    count: int,
    metrics: Sequence[str] = (),
    *,
    log: bool,
    with_self_test: bool = False,
    done: Callable[[Twin], None] = lambda twin: None,
) -> Result:
    """Run `count` twins and compare those that count: the files of `plan.outputs`, or all, and the metrics.

    Raises InputError for a mistake in the call that is known before anything has run.
    """
    seeds = arms.seeds(arm, seed, count)
    environments = [arms.environment(arm, each, os.environ) for each in seeds]

    def judge(twins: Sequence[Twin]) -> Result:
        usable = [twin for twin in twins if not twin.problem or (twin.code == 0 and twin.written_outside)]
        return _judge(plan, arm, twins, usable, metrics, log=log, with_self_test=with_self_test)

    def alike(twins: Sequence[Twin]) -> bool:
        result = judge(twins)
        return not (result.apart or result.bad)

    return judge(run_twins(plan, environments, seeds, done, alike))


def _judge(
    plan: Plan,
    arm: str,
    twins: Sequence[Twin],
    compared: Sequence[Twin],
    metrics: Sequence[str],
    *,
    log: bool,
    with_self_test: bool,
) -> Result:
    files: list[FileResult] = []
    results: list[MetricResult] = []
    bad: list[str] = []
    notes: list[str] = []
    tested: list[str] = []
    if len(compared) > 1:
        everything = not plan.outputs and not metrics and any(any(twin.folder.iterdir()) for twin in compared)
        try:
            files = compare_files(compared, ["**/*"] if everything else plan.outputs, log=log)
        except InputError as error:
            bad.append(str(error))
        if plan.interrupt and everything:  # logs of a second start, a copy of the state that the signal had it save
            alone = [file.name for file in files if file.verdict == ABSENT and compared[0].name not in file.sha256]
            files = [file for file in files if file.name not in alone]
            shown = f"{', '.join(alone[:5])}{' ...' if len(alone) > 5 else ''}"
            notes += [f"not compared, as only interrupted twins wrote it: {shown}"] if alone else []
        for wanted in metrics:
            result, problems = compare_metric(compared, wanted)
            results += [result] if result else []
            bad += problems
        if not (files or results or bad):
            bad.append("nothing to compare: the twins wrote no file")
        elif [file.name for file in files] == [PRINTED] and not results:
            if not any(twin.log.stat().st_size for twin in compared):
                bad.append("nothing to compare: the twins wrote no file into their folder and printed nothing")
            notes.append(
                "no file was written into the folders that the twins ran in: only what they printed was compared"
            )
        tested = self_test(compared, files) if with_self_test else []
    return Result(plan, arm, twins, files, results, bad, tested, notes)
