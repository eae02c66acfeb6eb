"""`twinrun slurm`: writes the scripts of the missing runs into slurm/, and submits them where it is asked to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twinrun.launch.slurm import Jobs, array_script, chunked, finish_script, site_lines, submit_script
from twinrun.launch.status import missing_runs
from twinrun.study.errors import InputError
from twinrun.study.files import explain_os_error, write_text
from twinrun.study.layout import Layout
from twinrun.study.params import Params


def write_scripts(
    params: Params, layout: Layout, *, chunk: int, at_once: int | None, image: str | None, scratch: bool
) -> list[str]:
    """Write array.sbatch, finish.sbatch and submit.sh into slurm/; the text of the two jobs.

    Where nothing is missing there is no array. Raises InputError for a site file that sbatch would not read, and
    IncompleteError when tasks are not prepared.
    """
    missing = missing_runs(params, layout)
    site = _site(layout.slurm / "site.sbatch")
    finish_site = layout.slurm / "site-finish.sbatch"
    jobs = Jobs(
        study=params.study,
        grid_digest=params.grid_digest,
        chunks=chunked([run.id for run in missing], chunk),
        python=sys.executable,
        image=image,
        gpu=params.execution.device != "cpu",
        at_once=at_once,
        scratch=scratch,
        site=site,
        site_finish=_site(finish_site) if finish_site.is_file() else site,
        chunk=chunk,
    )
    texts = {"finish.sbatch": finish_script(jobs), "submit.sh": submit_script(jobs)}
    if jobs.chunks:
        texts = {"array.sbatch": array_script(jobs)} | texts
    else:
        (layout.slurm / "array.sbatch").unlink(missing_ok=True)
    for name, text in texts.items():
        write_text(layout.slurm / name, text)
    return [text for name, text in texts.items() if name != "submit.sh"]


def submit(layout: Layout) -> None:
    """Run slurm/submit.sh, which needs nothing but bash and sbatch; InputError when it fails."""
    done = subprocess.run(["bash", str(layout.slurm / "submit.sh")], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().replace("twinrun: ", "")
        raise InputError(f"submitting failed: {said}", "the scripts are in slurm/; `bash slurm/submit.sh` tries again")


def _site(path: Path) -> tuple[str, ...]:
    try:
        return site_lines(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise (
            explain_os_error(error, path) if isinstance(error, OSError) else InputError(f"{path}: not text")
        ) from error
