"""Commands about data: the archives that a study reads, and the packed arrays made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twinrun.cli.options import DEFAULT_PARAMS, ParamsFile, load_params
from twinrun.study.errors import InputError, plain
from twinrun.study.layout import Layout

if TYPE_CHECKING:  # heavy to import
    from twinrun.study.params import Params

data_app = typer.Typer(no_args_is_help=True, help="Fetch or make what a study reads.")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="cifar10, sdnet2018, cbis-ddsm or weights.")],
    origin: Annotated[str | None, typer.Option("--from", help="A mirror's address, or a local file or folder.")] = None,
) -> None:
    """Fetch a data set or ImageNet weights into data/, check it, and put it under DVC; goes on where it was."""
    from twinrun.fetch.publishers import FILES, fetch, is_address
    from twinrun.launch.dvc import track
    from twinrun.launch.progress import Progress

    if name not in (*FILES, "cbis-ddsm"):
        raise InputError(f"{name!r} is no data set", f"allowed: {', '.join((*FILES, 'cbis-ddsm'))}")
    data = Layout().data
    with Progress(f"fetch {name}", 1) as progress:
        if name != "cbis-ddsm":
            paths = fetch(name, data, origin, progress.update)
        else:
            from twinrun.fetch.cbis_ddsm import API, copy_cbis, fetch_cbis

            if origin and not is_address(origin):
                paths = [copy_cbis(Path(origin), data, progress.update)]
            else:
                paths = [fetch_cbis(data, api=origin or API, progress=progress.update)]
    for path in paths:
        print(path)
    # Weights are several files: DVC tracks their folder.
    print(track(Path(), paths[0].parent if len(paths) > 1 else paths[0]))


def prepare(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks of the study; default: all of its grid.")] = None,
    params_file: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Decode, resize and pack a task's images once, into prepared/."""
    params = load_params(params_file)
    for task in tasks or params.grid.tasks:
        if task not in params.tasks:
            raise InputError(f"task {task!r} is not in {params_file}", f"tasks: {', '.join(params.tasks)}")
        prepare_one(params, task)


def prepare_one(params: Params, task: str) -> None:
    """Pack the images of one task and say what they are; in a fresh clone the sample data are brought first."""
    from twinrun.data.prepare import prepare as prepare_task
    from twinrun.launch.dvc import bring_sample
    from twinrun.launch.progress import Progress

    bring_sample(Path(), params.tasks[task].data.source)
    with Progress(f"prepare {task}", 1) as progress:
        manifest = prepare_task(task, params.tasks[task].data, Path(), Layout().prepared(task), progress.update)
    classes = manifest["classes"]
    positive = f", positive {classes[1]}" if len(classes) == 2 else ""
    print(
        f"{task}: {manifest['n_train']} train and {manifest['n_test']} test images, {len(classes)} classes"
        f"{positive}, digest {manifest['digest']}"
    )
    for line in manifest["remarks"]:
        print(f"{task}: {plain(line)}")
