"""`twinrun compare` in words and as JSON: the verdict first, then the numbers that it rests on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from twinrun.report.evidence import Runs, in_order, unit_notes
from twinrun.stats.compare import Comparison, Verdict, all_pairs, compare, t_interval, two_way_error
from twinrun.stats.coverage import coverage_words
from twinrun.stats.digits import p_value, to_the_place, two_digits, with_ends
from twinrun.stats.multiplicity import holm
from twinrun.stats.published import Published, agreement_range, published, sd_that_undoes
from twinrun.stats.samples import Interval


@dataclass(frozen=True)
class Compared:
    """All pairs of some groups, with p values corrected by Holm where there are more than one."""

    runs: Runs
    comparisons: Mapping[tuple[str, str], Comparison]
    corrected: Mapping[tuple[str, str], float | None]
    lines: tuple[str, ...] = ()
    over_images: Mapping[tuple[str, str], Interval] = field(default_factory=dict)  # for other runs and test images

    def verdict(self, pair: tuple[str, str]) -> Verdict:
        """The verdict of a pair; with several pairs a difference must stand after Holm's correction."""
        item, p = self.comparisons[pair], self.corrected[pair]
        told = item.verdict in (Verdict.BETTER, Verdict.WORSE)
        # Sequential intervals share the level among the pairs already.
        if len(self.comparisons) > 1 and told and not item.sequential and (p is None or p > 0.05):
            return Verdict.CANNOT_TELL
        return item.verdict


def compare_runs(
    runs: Runs,
    lines: Sequence[str] = (),
    *,
    margin: float | None = None,
    lower_is_better: bool = False,
    sequential: bool = False,
) -> Compared:
    """Every pair of groups; an anytime-valid comparison shares its 5 % among the pairs. A loss is better when lower."""
    if runs.lower_is_better and not lower_is_better:
        lower_is_better, lines = True, (*lines, f"{runs.metric or 'loss'}: lower is better")
    if not lower_is_better:
        runs = replace(runs, notes=(*runs.notes, *unit_notes(runs), *_coarse_margin(runs, margin)))
    runs = in_order(runs) if sequential and not runs.paired else runs
    pairs = all_pairs(list(runs.values))
    alpha = 0.05 / len(pairs) if sequential else 0.05
    comparisons = {}
    for a, b in pairs:
        first, second = ([runs.values[n][i] for i in at] for n, at in zip((a, b), runs.compared(a, b), strict=True))
        comparisons[a, b] = compare(
            first, second, np.random.default_rng(0), paired=runs.paired, margin=margin,
            higher_is_better=not lower_is_better, sequential=sequential, alpha=alpha,
        )  # fmt: skip
    over_images = {}
    if not sequential:  # it is for a fixed number of runs
        for a, b in pairs:
            if a in runs.right and b in runs.right:
                right = [runs.right[n][at] for n, at in zip((a, b), runs.compared(a, b), strict=True)]
                error = two_way_error(*right, paired=runs.paired)
                wider = t_interval(error, right[0].mean(axis=1), right[1].mean(axis=1), 0.05)
                over_images[a, b] = _not_within(wider, comparisons[a, b].interval)
    known = holm([None if sequential else item.test.p for item in comparisons.values()])
    return Compared(runs, comparisons, dict(zip(comparisons, known, strict=True)), tuple(lines), over_images)


def _not_within(wider: Interval, narrow: Interval) -> Interval:
    """`wider` where it is: with two runs its degrees of freedom may make it the shorter one."""
    if None in (wider.low, wider.high, narrow.low, narrow.high):
        return wider
    low, high = (end or 0.0 for end in (narrow.low, narrow.high))
    return replace(wider, low=min(wider.low or 0.0, low), high=max(wider.high or 0.0, high))


def sentences(compared: Compared) -> list[str]:
    """The verdict of each pair first, then its numbers."""
    several = len(compared.comparisons) > 1
    lines = [verdict_words(compared, pair) for pair in compared.comparisons]
    if several:
        untold = [f"{a} and {b}" for (a, b) in compared.comparisons if compared.verdict((a, b)) is Verdict.CANNOT_TELL]
        lines.append(f"not told apart: {', '.join(untold) or 'none'} ({len(lines)} pairs, Holm's correction)")
    lines.append("")
    width = max(map(len, compared.runs.values))
    for name, values in compared.runs.values.items():
        n, sd = len(values), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        mean = to_the_place(float(np.mean(values)), sd / math.sqrt(n))
        lines.append(f"{name:<{width}}  n {n}, mean {mean}, {f'SD {two_digits(sd)}' if n > 1 else 'no SD'}")
    for pair in compared.comparisons:
        lines += ["", *pair_words(compared, pair)]
    return [*lines, *compared.lines, *(f"note: {note}" for note in compared.runs.notes)]


def _coarse_margin(runs: Runs, margin: float | None) -> list[str]:
    """Shares and a margin that was probably meant in points."""
    if margin is None or margin < 0.25 or not all(0 <= value <= 1 for group in runs.values.values() for value in group):
        return []
    return [
        f"a margin of {margin:g} is {100 * margin:g} points of shares in [0, 1]; {margin:g} points are {margin / 100:g}"
    ]


def verdict_words(compared: Compared, pair: tuple[str, str]) -> str:
    """One line: B is better, A is better, equivalent within the margin, or cannot tell and what would."""
    (a, b), item, verdict = pair, compared.comparisons[pair], compared.verdict(pair)
    if verdict in (Verdict.BETTER, Verdict.WORSE):
        better, other = (b, a) if verdict is Verdict.BETTER else (a, b)
        within = ", by less than the margin" if item.within_margin else ""
        return f"{better} is better than {other}{within}: {_difference(item, pair)}"
    if verdict is Verdict.EQUIVALENT and item.equivalence is not None:
        return f"equivalent within the margin of {item.equivalence.margin:g}: {_difference(item, pair)}"
    first, second = (
        [compared.runs.values[name][place] for place in places]
        for name, places in zip(pair, compared.runs.compared(a, b), strict=True)
    )
    if item.interval.low is None and first == second:
        return f"cannot tell {a} and {b} apart: their numbers are the same; are they different models?"
    if item.interval.low is None:
        return f"cannot tell {a} and {b} apart: {item.interval.reason}"
    return f"cannot tell {a} and {b} apart: {need_words(item, pair)} ({_difference(item, pair)})"


def need_words(item: Comparison, pair: tuple[str, str]) -> str:
    """What would decide a comparison that cannot tell."""
    if item.sequential:
        return "add runs until it decides"
    if min(item.n) == 1:
        return f"{pair[0] if item.n[0] == 1 else pair[1]} is one run, and more of the other would hardly help"
    if item.more is None:
        return "the difference does not stand among so many pairs"
    if item.more.n is None:
        return item.more.reason
    noun = f"{'pair' if item.paired else 'run'}{'' if item.more.n == 1 else 's'}{'' if item.paired else ' each'}"
    close = item.equivalence is not None and abs(item.interval.value or 0.0) < item.equivalence.margin
    margin = ", or show that they are equivalent" if close else ""
    return f"about {item.more.n:,} more {noun} would{margin}, if this difference and these SDs are the true ones"


def _difference(item: Comparison, pair: tuple[str, str]) -> str:
    return _interval_words(item.interval, pair)


def _interval_words(interval: Interval, pair: tuple[str, str]) -> str:
    if interval.value is None or interval.low is None or interval.high is None:
        return interval.reason
    kind = f"{100 * interval.confidence:.3g} % interval"
    value, low, high = with_ends(interval.value, interval.low, interval.high, sign="+")
    return f"{pair[1]} - {pair[0]} = {value}, {kind} {low} to {high}"


def pair_words(compared: Compared, pair: tuple[str, str]) -> list[str]:
    """The numbers behind one verdict, a line each."""
    (a, b), item = pair, compared.comparisons[pair]
    lines = [f"{_difference(item, pair)} ({item.interval.method})"]
    named = "sequential" if item.sequential else "paired t" if item.paired else "Welch"
    name = "difference to one new run" if min(item.n) == 1 else f"difference, {named}"
    if item.interval.low is not None:
        lines.append(f"  this interval {coverage_words(name, max(item.n) if min(item.n) == 1 else min(item.n))}")
    wider = compared.over_images.get(pair)
    if wider is not None and wider.low is not None:
        lines.append(f"on other test images of this kind, too: {_interval_words(wider, pair)} (over runs and images)")
        lines.append(f"  this interval {coverage_words('difference, over runs and images', min(item.n))}")
    if item.sequential:  # nothing of a fixed number of runs beside it: it would not hold for who looks again
        lines.append("the interval holds however often you look, so runs may be added until it decides")
        return lines
    sizes = f"{item.n[0]} pairs" if item.paired else f"{item.n[0]} against {item.n[1]} runs"
    if item.test.p is not None:
        corrected = compared.corrected[pair]
        holm_words = f", {p_value(corrected)} after Holm" if len(compared.comparisons) > 1 and corrected else ""
        lines.append(f"p = {p_value(item.test.p)} by {item.test.method}{holm_words}")
    if item.permutation.p is not None:
        lines.append(
            f"p = {p_value(item.permutation.p)} by {item.permutation.method}; with {sizes} it cannot be below "
            f"{p_value(item.permutation_floor)}"
        )
    share = item.superiority
    if share is not None and share.value is not None:
        ends = f", 95 % interval {share.low:.2f} to {share.high:.2f}" if share.low is not None else ""
        u = share.value * item.n[0] * item.n[1]
        lines.append(f"P({b} > {a}) = {share.value:.2f}{ends} (Mann-Whitney U = {u:g} of {item.n[0] * item.n[1]})")
    tost = item.equivalence
    if tost is not None and tost.p is not None and tost.low is not None and tost.high is not None:
        _, low, high = with_ends(0.0, tost.low, tost.high, sign="+", neutral=(0, -tost.margin, tost.margin))
        lines.append(
            f"within the margin of {tost.margin:g}: p = {p_value(tost.p)} (TOST), "
            f"{100 * (2 * item.interval.confidence - 1):.3g} % interval {low} to {high}"
        )
    if item.detectable is not None:
        lines.append(f"smallest true difference that {sizes} show with a power of 80 %: {two_digits(item.detectable)}")
    if item.paired and item.correlation is not None and item.width_unpaired and item.interval.low is not None:
        ratio = ((item.interval.high or 0.0) - (item.interval.low or 0.0)) / item.width_unpaired
        gained = f"shorter by {100 * (1 - ratio):.0f} %" if ratio < 1 else f"longer by {100 * (ratio - 1):.0f} %"
        by = compared.runs.pair_name
        lines.append(f"correlation of pairs by {by} {item.correlation:+.2f}: pairing made the interval {gained}")
    return lines


def compared_json(compared: Compared) -> dict[str, Any]:
    """The comparison as plain values; null where a number does not exist."""
    pairs = []
    for (a, b), item in compared.comparisons.items():
        entry = {"a": a, "b": b, **asdict(item)}
        entry.update(verdict=str(compared.verdict((a, b))), within_margin=item.within_margin, not_worse=item.not_worse)
        entry["p_holm"] = compared.corrected[(a, b)]
        wider = compared.over_images.get((a, b))
        entry["over_runs_and_images"] = asdict(wider) if wider is not None else None
        pairs.append(entry)
    values = {name: list(group) for name, group in compared.runs.values.items()}
    keys = {name: list(group) for name, group in compared.runs.keys.items()}
    return {"metric": compared.runs.metric, "paired": compared.runs.paired, "groups": values, "keys": keys,
            "pairs": pairs, "notes": [*compared.lines, *compared.runs.notes]}  # fmt: skip


def json_text(content: Any) -> str:
    """JSON with sorted keys; null for a number that is not finite, which JSON cannot hold.

    >>> json_text({"df": float("nan")})
    '{\\n "df": null\\n}'
    """
    return json.dumps(_plain(content), sort_keys=True, indent=1, allow_nan=False)


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def published_words(item: Published, margin: float | None = None) -> list[str]:
    """Verdict on two published numbers and what it rests on."""
    verdict = published_verdict(item, margin)
    neutral = (0, *(() if margin is None else (-margin, margin)))
    _, lowest, highest = with_ends(item.difference, item.low, item.high, sign="+", neutral=neutral)
    ends = f"true difference B - A {lowest} to {highest} with 95 %"
    if verdict in (Verdict.BETTER, Verdict.WORSE):
        first = f"{'B' if verdict is Verdict.BETTER else 'A'} is better: {ends}"
    elif verdict is Verdict.EQUIVALENT:
        first = f"equivalent within the margin of {margin:g}: {ends}"
    else:
        first = f"cannot tell: {ends}"
    ahead = "A" if item.difference < 0 else "B"

    def other(p_b_worse: float) -> str:
        return f"{100 * (1 - p_b_worse if ahead == 'A' else p_b_worse):.1f} %"

    low, high = agreement_range(item.a, item.b)
    lines = [
        first,
        "",
        f"A {item.a:g}, B {item.b:g} on {item.images:,} images, both right on {100 * item.both_right:.1f} % of them "
        f"({100 * low:.1f} to {100 * high:.1f} % is possible)",
        f"chance that {ahead} is not truly ahead, from the sampling of test images alone: {other(item.wrong_images)}",
    ]
    if abs(item.both_right - item.a * item.b) < 1e-12:
        most = published(item.a, item.b, item.images, both_right=high)
        lines.append(
            f"  supposing independent errors; if the models agreed as far as they can: {other(most.wrong_images)} "
            "(--both-right SHARE where it is known)"
        )
    if item.wrong_training is not None and item.wrong is not None:
        lines.append(f"from training noise alone (SD {item.sd:g}): {other(item.wrong_training)}")
        lines.append(f"from both: {other(item.wrong)}")
        largest = max(math.sqrt(share * (1 - share)) for share in (item.a, item.b))
        if item.sd is not None and item.sd > max(largest, 0.1):
            lines.append(
                f"note: runs with a mean of {item.a:g} or {item.b:g} have an SD of at most {two_digits(largest)}; "
                f"{item.sd:g} points are {item.sd / 100:g}"
            )
    else:
        undone = sd_that_undoes(item.a, item.b, item.images, item.both_right)
        lines.append(
            "training noise is not counted: give the total SD over runs with --sd"
            + (f"; an SD above {two_digits(undone)} would undo the verdict" if undone is not None else "")
        )
    return lines


def published_verdict(item: Published, margin: float | None) -> Verdict:
    """Better or worse where the 95 % interval has one sign, equivalent where it lies within the margin."""
    if item.low > 0 or item.high < 0:
        return Verdict.BETTER if item.low > 0 else Verdict.WORSE
    if margin is not None and max(-item.low, item.high) < margin:
        return Verdict.EQUIVALENT
    return Verdict.CANNOT_TELL
