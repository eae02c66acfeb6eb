"""`twinrun sweep`: train what is missing on this machine, several processes at a time, then record it in DVC."""

from __future__ import annotations

from pathlib import Path

from twinrun.launch.dvc import commit_stages, is_dvc_study
from twinrun.launch.processes import Finished, train_processes
from twinrun.launch.progress import Progress
from twinrun.study.errors import IncompleteError
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import current_code_digest, state_of

FINISHED = ("complete", "diverged")


def states(params: Params, layout: Layout) -> dict[Run, str]:
    """What there is of each run of the grid."""
    code = current_code_digest()
    return {run: state_of(layout.run(run), params_digest=params.run_digest(run), code=code) for run in params.runs}


def sweep(params: Params, root: Path, *, params_file: Path, jobs: int, device: str | None, record: bool) -> int:
    """Train every run that is not there in `jobs` processes and record all in DVC; return how many were trained.

    Raises IncompleteError naming the runs that failed; the others are kept and recorded.
    """
    layout = Layout(root)
    missing = [run for run, state in states(params, layout).items() if state not in FINISHED]
    options = ["--params", str(params_file)]
    if device:
        options += ["--device", device]
    if jobs > 1 and len(missing) > 1:
        options += ["--shared"]
    failed: list[Finished] = []
    if missing:
        with Progress("train", len(missing)) as progress:

            def note(finished: Finished) -> None:
                failed.extend([finished] if finished.code else [])
                progress.advance(finished.run.id + (f" failed ({finished.code})" if finished.code else ""))

            train_processes(missing, root=root, jobs=jobs, arguments=lambda run: options, done=note)
    if record and is_dvc_study(root):
        complete = [run.stage for run, state in states(params, layout).items() if state in FINISHED]
        commit_stages(root, complete)
    if failed:
        lines = "\n".join(f"  {item.run.id} (exit {item.code}): {item.message}" for item in failed[:10])
        more = f"\n  and {len(failed) - 10} more" if len(failed) > 10 else ""
        raise IncompleteError(
            f"{len(failed)} of {len(missing)} runs failed:\n{lines}{more}",
            "the others are kept; `twinrun sweep` tries the failed ones again",
        )
    return len(missing)
