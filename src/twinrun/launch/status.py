"""The state of each run, from records and work folders alone: no scheduler is asked, no clocks are compared."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path

from safetensors import SafetensorError, safe_open

from twinrun.study.errors import IncompleteError, InputError, plural
from twinrun.study.grid import Run
from twinrun.study.layout import CHECKPOINT, LOCK, Layout
from twinrun.study.lock import is_held
from twinrun.study.params import Params
from twinrun.study.records import FINISHED, current_code_digest, prepared_digest


def states(params: Params, layout: Layout) -> dict[Run, str]:
    """The state of each run's record."""
    code, data = current_code_digest(), {task: prepared_digest(layout, task) for task in params.grid.tasks}
    return {run: params.state_of(run, layout, data[run.task], code) for run in params.runs}


def missing_runs(params: Params, layout: Layout) -> dict[Run, str]:
    """The runs that are still to be trained, with the state of each.

    Raises IncompleteError naming tasks that are not prepared, when any run is missing.
    """
    missing = {run: state for run, state in states(params, layout).items() if state not in FINISHED}
    if missing:
        require_prepared(params.grid.tasks, layout)
    return missing


def require_prepared(tasks: Iterable[str], layout: Layout) -> None:
    """Raise IncompleteError naming those of `tasks` whose data are not prepared."""
    unprepared = [task for task in dict.fromkeys(tasks) if prepared_digest(layout, task) is None]
    if unprepared:
        raise IncompleteError(f"not prepared yet: {', '.join(unprepared)}", "`twinrun prepare` does it")


def require_sources(params: Params, layout: Layout) -> None:
    """Raise InputError naming the sources that are not there, of tasks of the grid that are not prepared."""
    sources = {task: params.tasks[task].data.source for task in params.grid.tasks}
    absent = [
        f"tasks.{task}.data.source: {source}: no such file or folder"
        for task, source in sources.items()
        if prepared_digest(layout, task) is None and not (layout.root / source).exists()
    ]
    if absent:
        hint = "`dvc pull data.dvc` brings the sample data, `twinrun data fetch` others; or correct `source`"
        raise InputError("\n".join(absent), hint)


class Watch:
    """Looks at a study again and again; what is finished is not read a second time."""

    def __init__(self, params: Params, layout: Layout) -> None:
        self.params, self.layout = params, layout
        self._finished: dict[Run, str] = {}

    def look(self) -> dict[Run, str]:
        """The state of each run now: as of its record, or `running` or `interrupted` with the epochs that are safe."""
        code, data = current_code_digest(), {t: prepared_digest(self.layout, t) for t in self.params.grid.tasks}
        states = {}
        for run in self.params.runs:
            state = self._finished.get(run) or self.params.state_of(run, self.layout, data[run.task], code)
            if state in FINISHED:
                self._finished[run] = state
            states[run] = state if state in FINISHED else self._at_work(run) or state
        return states

    def _at_work(self, run: Run) -> str | None:
        """Whether the run is being trained, or was; None when nobody began."""
        folder, epochs = self.layout.work(run), self.params.tasks[run.task].recipe.epochs
        saved = _epochs_saved(folder / CHECKPOINT)
        if is_held(folder / LOCK):
            return f"running, {saved or 0} of {epochs} epochs saved"
        return f"interrupted, {saved} of {epochs} epochs saved" if saved else None


def count(states: Mapping[Run, str]) -> str:
    """`72 runs: 70 complete, 2 running`."""
    kinds = Counter(state.split(",")[0] for state in states.values())
    return f"{plural(len(states), 'run')}: " + ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))


def follow(look: Callable[[], Mapping[Run, str]], seconds: float, finished: Collection[str]) -> None:
    """Show what `look` returns every so many `seconds` until every run is in one of the states `finished`."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    with Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:
        before: Mapping[Run, str] = {}
        while True:
            states = look()
            going = [
                f"{run.id}  {state}"
                for run, state in states.items()
                if state.split(",")[0] in ("running", "interrupted")
            ]
            if live:
                live.update("\n".join([count(states), *going[: console.height - 2]]), refresh=True)
            elif states != before:
                print("; ".join([count(states), *going]), flush=True)
            if all(state in finished for state in states.values()):
                return
            before = states
            time.sleep(seconds)


def _epochs_saved(checkpoint: Path) -> int | None:
    # Its header alone is read; the file may be replaced or removed at any moment.
    try:
        with safe_open(checkpoint, framework="np") as file:
            return int(json.loads((file.metadata() or {})["progress"])["epoch"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
