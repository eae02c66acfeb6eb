"""The verdict on a program's twins, as text, as JSON and as one self-contained page."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from twinrun.stats.coverage import coverage_words
from twinrun.stats.digits import two_digits, with_ends
from twinrun.study.errors import plain, plural
from twinrun.study.files import write_json, write_text
from twinrun.twins import arms
from twinrun.twins.comparing import ABSENT, DIFFERENT, SAME, FileResult
from twinrun.twins.metrics import MetricResult
from twinrun.twins.parts import PARTS, explained
from twinrun.twins.running import Plan, Twin, hidden_failure

SCHEMA = 1
SHOWN = 20  # files with the same bytes, and as many others, that are named on the terminal
ON_THE_PAGE = 1000
IDENTICAL, DIFFERS, UNFINISHED, BAD = "identical", "different", "incomplete", "bad input"
NO_EFFECT = "identical in spite of different seeds"
SEED_HINT = (
    "the seed is only offered, in the variable TWINRUN_SEED and by twinrun.controlled(): does the program use it?"
)
EXIT_CODES = {IDENTICAL: 0, DIFFERS: 4, NO_EFFECT: 4, UNFINISHED: 3, BAD: 2}


@dataclass(frozen=True)
class Result:
    """Everything about one call of `twinrun twins`."""

    plan: Plan
    arm: str
    twins: Sequence[Twin]
    files: Sequence[FileResult]
    metrics: Sequence[MetricResult]
    bad: Sequence[str]  # mistakes of the call: a metric that is not there
    self_test: Sequence[str] = ()  # which planted differences were seen
    notes: Sequence[str] = ()  # what was left out of the comparison

    @property
    def verdict(self) -> str:
        """`bad input` before `incomplete` before `different` before `identical`; of arm all, identical is a fault."""
        if self.bad or any(twin.written_outside and not twin.code for twin in self.twins):
            return BAD
        if any(twin.problem for twin in self.twins):
            return UNFINISHED
        if self.apart:
            return DIFFERS
        return NO_EFFECT if self.arm == "all" else IDENTICAL

    @property
    def apart(self) -> bool:
        """Whether any output or metric differs, among those that were compared."""
        return bool(self.first)

    @property
    def first(self) -> str:
        """The first output or metric that differs; empty when none does."""
        files = [file.name for file in self.files if file.verdict in (DIFFERENT, ABSENT)]
        return next(iter([*files, *(metric.name for metric in self.metrics if not metric.same)]), "")

    @property
    def resume_differs(self) -> bool:
        """Whether twins that were interrupted left something else than those that were not."""
        return self.apart and any(twin.interrupted for twin in self.twins)

    @property
    def interrupted(self) -> list[Twin]:
        """The twins that were stopped and started again, and count."""
        return [twin for twin in self.twins if twin.interrupted and not twin.problem]

    @property
    def remarks(self) -> list[str]:
        """The mistakes of the call, what may be the reason of a difference, and what the twins left running."""
        left = [f"{twin.name} left running, now ended: {', '.join(twin.left_running)}" for twin in self.twins
                if twin.left_running]  # fmt: skip
        seed = self.arm == "det" and self.apart and not self.resume_differs
        hint = [SEED_HINT] if seed or self.verdict == NO_EFFECT else []
        if seed:
            links = [word for name in self.plan.linked for word in ("--link", name)]
            command = shlex.join(["twinrun", "locate", *links, "--", *self.plan.command])
            hint.append(f"where they part, if the program uses PyTorch: {command}")
        reasons = [*hint, *_listed_otherwise(self), *self.self_test, *_explained(self)]
        return [*self.bad, *left, *_hidden_failures(self), *self.notes, *reasons, *_what_it_bears(self)]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]


def sentences(result: Result) -> list[str]:
    """The verdict and what it rests on, one line each."""
    count = len(result.twins)
    lines = [f"{count} twins of `{shlex.join(result.plan.command)}`, arm {result.arm} ({arms.described(result.arm)})"]
    metrics = [metric_words(metric) for metric in result.metrics]
    if result.arm == "all":  # how far they scatter is the question; that they differ is no news
        lines, metrics = [*metrics, *lines], []
    lines += [f"{twin.name}: {twin.problem or twin.interrupted}" for twin in result.twins
              if twin.problem or twin.interrupted]  # fmt: skip
    lines += _file_lines(result.files)
    lines += metrics
    lines += result.remarks
    loaded = sum(twin.loaded for twin in result.twins)
    lines += [f"{loaded} of {count} twins ran while every core was kept busy"] if loaded else []
    return [plain(line) for line in (*lines, f"verdict: {_verdict_words(result)}")]


def _file_lines(files: Sequence[FileResult]) -> list[str]:
    same = [file for file in files if file.verdict == SAME]
    others = [file for file in files if file.verdict != SAME]
    shown = {file.name for file in (*same[:SHOWN], *others[:SHOWN])}
    hidden = ((len(same), "the same bytes in all"), (len(others), "other verdicts"))
    return [
        *(f"{file.name}: {file.what}" for file in files if file.name in shown),
        *(f"and {n - SHOWN} more files with {what} (twins.json lists them)" for n, what in hidden if n > SHOWN),
    ]


def metric_words(metric: MetricResult) -> str:
    """Mean, SD with its interval, range and n."""
    n = len(metric.values)
    spread = f"SD {two_digits(metric.sd)}" if metric.sd is not None else "no SD"
    if metric.sd_low is not None and metric.sd_high is not None:
        spread += f" (95 % from {two_digits(metric.sd_low)} to {two_digits(metric.sd_high)})"
    if not metric.same and metric.mean_low is not None and metric.mean_high is not None:
        mean, low, high = with_ends(metric.mean, metric.mean_low, metric.mean_high)
        return (
            f"{metric.name}: mean {mean} (95 % from {low} to {high}), "
            f"{spread}, {metric.minimum:.6g} to {metric.maximum:.6g}, n = {n}"
        )
    same = ", the same in all" if metric.same else f", {metric.minimum:.6g} to {metric.maximum:.6g}"
    return f"{metric.name}: mean {metric.mean:.6g}, {spread}{same}, n = {n}"


def _verdict_words(result: Result) -> str:
    finished = sum(not twin.problem for twin in result.twins)
    if result.verdict == BAD:
        return "bad input: the twins cannot be judged until what is named above is mended"
    if result.verdict == UNFINISHED:
        return f"incomplete: {finished} of {len(result.twins)} twins count; what they left was compared all the same"
    if result.verdict == NO_EFFECT and not result.files:
        return (
            "every metric is the same in spite of different seeds, which may be chance where few values are possible; "
            "without --metric the files and what is printed are compared"
        )
    if result.verdict == NO_EFFECT:
        return "the seed changes nothing: twins with different seeds left the same results"
    if result.verdict == DIFFERS:
        if result.plan.interrupt and not result.resume_differs:
            return (
                f"different without any interrupt, first in {result.first}: a resume can be judged when the twins of "
                "this program are identical"
            )
        return f"{'the resume is not exact' if result.plan.interrupt else 'different'}, first in {result.first}"
    if result.plan.interrupt:
        count, whole = plural(len(result.interrupted), "interrupted twin"), len(result.twins) - len(result.interrupted)
        return f"the resume is exact: {count} left the same as {whole} uninterrupted ones"
    if not result.files:
        return "identical in every metric; no output file was compared"
    return f"identical: {plural(len(result.files), 'output')} with the same contents in all"


def _hidden_failures(result: Result) -> list[str]:
    """Tracebacks of twins that ended well all the same: a rank or worker may have failed."""
    failed = [twin for twin in result.twins if twin.traceback]
    return [hidden_failure(twin.name, twin.traceback) for twin in failed[:1]] + (
        [f"and {len(failed) - 1} more twins did so"] if len(failed) > 1 else []
    )


def _listed_otherwise(result: Result) -> list[str]:
    """A possible reason of a difference: the order of files is the file system's, and it was not the same."""
    twin = next((twin for twin in result.twins if twin.listed_otherwise and not twin.problem), None)
    if not (result.apart and twin):
        return []
    shown = ", ".join("its folder" if name == "." else name for name in twin.listed_otherwise[:3])
    return [
        f"the file system lists {shown} in another order for {twin.name}: does the program sort the files it finds?"
    ]


def _explained(result: Result) -> list[str]:
    """Of a resume that is not exact: which part of the checkpoints is the first to differ, and where."""
    if not result.resume_differs:
        return []
    parts = {part: f"{file.name}: {what}" for file in reversed(result.files) for part, what in file.parts.items()}
    words = explained(parts, {part for file in result.files for part in file.present})
    first = next((part for part in PARTS if part in parts), None)
    return [words, f"{first}: {parts[first]}"] if first else []


def _what_it_bears(result: Result) -> list[str]:
    """What follows from twins that are identical, and what was held fixed for it."""
    finished = sum(not twin.problem for twin in result.twins)
    if result.verdict != IDENTICAL or finished < 2:
        return []
    if result.plan.interrupt:
        exact = plural(len(result.interrupted), "exact resume")
        bound = f"{100 * differing_below(len(result.interrupted) + 1):.0f} %"
        return [f"{exact}: with 95 % confidence at most {bound} of such interrupts change the result"]
    share = (
        f"{finished} identical twins: with 95 % confidence "
        f"at most {100 * differing_below(finished):.0f} % of starts differ"
    )
    pinned = "; det pins the hash seed, threads and instruction set, arm nd runs in your own environment"
    return [share + (pinned if result.arm == "det" else "")]


def differing_below(n: int) -> float:
    """The 95 % upper limit of the share of starts that differ from the first, when n twins were all alike.

    The p with (1 - p)^(n - 1) = 0.05. Source: the exact binomial limit of Clopper and Pearson (1934) for no event.

    >>> round(differing_below(5), 3), round(differing_below(30), 3)
    (0.527, 0.098)
    """
    return float(1 - 0.05 ** (1 / (n - 1)))


def write_result(result: Result) -> Path:
    """Write twins.json and index.html into the results' folder; returns the path of the page."""
    out = result.plan.out
    write_json(out / "twins.json", as_json(result))
    environment = Environment(
        loader=PackageLoader("twinrun.twins"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    page = environment.get_template("twins.html.j2").render(
        result=result,
        shown=result.files[:ON_THE_PAGE],
        lines=sentences(result),
        metric_words=metric_words,
        command=shlex.join(result.plan.command),
        held=coverage_words("SD, chi-square", len(result.twins)),
    )
    write_text(out / "index.html", plain(page))  # names of outputs need not be UTF-8
    return out / "index.html"


def json_line(result: Result) -> str:
    """What a script wants to know, on one line; all else is in twins.json."""
    finished = sum(not twin.problem for twin in result.twins)
    line = {
        "verdict": result.verdict, "exit_code": result.exit_code, "first": result.first, "twins": len(result.twins),
        "finished": finished, "arm": result.arm, "compared": len(result.files) + len(result.metrics),
        "said": sentences(result)[-1].removeprefix("verdict: "), "folder": str(result.plan.out),
    }  # fmt: skip
    return json.dumps(line)


def as_json(result: Result) -> dict[str, Any]:
    """The result as plain values; null where a number does not exist."""
    return {
        "schema": SCHEMA,
        "verdict": result.verdict,
        "command": list(result.plan.command),
        "arm": result.arm,
        "environment": arms.described(result.arm),
        "exit_code": result.exit_code,
        "first": result.first,
        "interrupt": None if result.plan.interrupt is None else asdict(result.plan.interrupt),
        "twins": [{**asdict(twin), "folder": twin.folder.name} for twin in result.twins],
        "files": [asdict(item) for item in result.files],
        "metrics": [{**asdict(item), "same": item.same} for item in result.metrics],
        "bad_input": list(result.bad),
    }
