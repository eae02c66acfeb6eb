"""The two SDs of a study that a verdict may use, pooled over its cells: total for two models, same-seed for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from twinrun.collect.study import Study
from twinrun.report.table import in_points
from twinrun.stats.intervals import PooledSd
from twinrun.stats.variance import total_sd
from twinrun.study.errors import plural


@dataclass(frozen=True)
class StudySd:
    """A pooled SD, in the unit of its metric; `kind` is "total" or "same-seed", `source` says where it comes from."""

    kind: str
    pooled: PooledSd
    source: str

    def said(self, show: Callable[[float], str] = in_points, unit: str = "points") -> str:
        """The SD with its interval and degrees of freedom, numbers as `show` has them.

        >>> StudySd("total", PooledSd(0.01, 9), "arm all, 1 cell").said()
        'total SD 1.0 points (95 % interval 0.69 to 1.8, 9 degrees of freedom; arm all, 1 cell)'
        """
        interval, df = self.pooled.interval(), f"{self.pooled.df:.3g} degrees of freedom"
        if interval.value is None:
            return f"{self.kind} SD {interval.reason} ({self.source})"
        value = " ".join(filter(None, (show(interval.value), unit)))
        if interval.low is None or interval.high is None:
            return f"{self.kind} SD {value} ({df}; {self.source})"
        ends = f"{show(interval.low)} to {show(interval.high)}"
        return f"{self.kind} SD {value} (95 % interval {ends}, {df}; {self.source})"


def study_total_sd(study: Study, task: str, metric: str) -> StudySd:
    """The SD of one run with everything free, pooled over the optimizers.

    From the arm `all`, in which the seed fixes nothing, so that its runs count together whatever their seed; without
    two such runs, from the nd runs of several seeds, by variance components.
    """
    settings = study.settings(task)
    everything = [np.concatenate(values) for setting in settings if (values := setting.samples("all", metric))]
    several = [values for values in everything if values.size > 1]
    if several:
        return StudySd("total", PooledSd.of(several), f"arm all, {plural(len(several), study.setting_word)}")
    parts = [total_sd(setting.samples("nd", metric)) for setting in settings]
    kept = [part for part in parts if part.df]
    source = (
        f"seeds and noise together, {plural(len(kept), study.setting_word)}" if kept else "no arm all, no two seeds"
    )
    return StudySd("total", PooledSd.together(kept), source)


def study_same_seed_sd(study: Study, task: str, metric: str) -> StudySd:
    """The SD of identical runs (nd), pooled over the cells."""
    identical = [values for group in study.groups("nd", task=task) if (values := group.known(metric)).size > 1]
    source = f"arm nd, {plural(len(identical), 'cell')}" if identical else "no cell with two nd runs"
    return StudySd("same-seed", PooledSd.of(identical), source)


def inverted(study: Study, task: str, metric: str, total_is: str = "it") -> str:
    """Why the total SD, which the text before calls `total_is`, is below the same-seed SD; empty where it is not."""
    total, same = (find(study, task, metric).pooled for find in (study_total_sd, study_same_seed_sd))
    if not (total.df and same.df and total.value < same.value):
        return ""
    return (
        f"That {total_is} lies below the same-seed SD ({in_points(same.value)} points) is chance, or the seeds tried "
        "scatter more than most: more freedom cannot bring runs closer on average. Go by the larger."
    )
