"""Inputs that the pipeline does not see are refused by every command that works with the study."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from twinrun.launch.inputs import require_inputs_in_sight
from twinrun.study.errors import InputError
from twinrun.study.layout import Layout
from twinrun.study.params import Params, read_params


def with_data(study: Layout, **keys: Any) -> Params:
    """The tiny study whose task `cuts` reads an image folder with these keys."""
    path = study.root / "params.yaml"
    content = yaml.safe_load(path.read_text())
    content["tasks"]["cuts"]["data"] = {"reader": "image_folder", "source": "data/x", "image_size": 16} | keys
    path.write_text(yaml.safe_dump(content))
    return read_params(path)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"source": "elsewhere/x"}, "tasks.cuts.data.source: elsewhere/x: it is not below data/"),
        ({"source": "data/../x"}, "source: data/../x: it is not below data/"),
        ({"source": "/mnt/disk/x"}, "source: /mnt/disk/x: it is not below data/"),
        ({"source": "data/linked"}, "source: data/linked: data/linked is a link to a folder"),
        ({"source": "data/linked/x"}, "source: data/linked/x: data/linked is a link to a folder"),
        ({"table": "labels.csv"}, "tasks.cuts.data.table: labels.csv: it is not below data/"),
        ({"table": "data/linked/labels.csv"}, "table: data/linked/labels.csv: data/linked is a link to a folder"),
        ({"source": "x.zip", "sha256": "1" * 64, "table": "t.csv"}, "tasks.cuts.data.table: t.csv"),
    ],
)
def test_inputs_out_of_sight_are_refused(keys: dict[str, Any], said: str, study: Layout) -> None:
    (study.root / "data").mkdir(exist_ok=True)
    (study.root / "elsewhere").mkdir()
    (study.root / "data" / "linked").symlink_to(study.root / "elsewhere")
    with pytest.raises(InputError) as caught:
        require_inputs_in_sight(with_data(study, **keys), study)
    assert said in caught.value.message
    assert caught.value.message.count("\n") == 0
    assert "DVC watches data/ alone" in caught.value.hint


@pytest.mark.parametrize(
    "keys", [{}, {"table": "data/t.csv"}, {"source": "/mnt/x.zip", "sha256": "1" * 64}, {"source": "data/file.zip"}]
)
def test_inputs_in_sight_are_not(keys: dict[str, Any], study: Layout) -> None:
    (study.root / "data").mkdir(exist_ok=True)
    (study.root / "real.zip").write_bytes(b"x")
    (study.root / "data" / "file.zip").symlink_to(study.root / "real.zip")  # as DVC makes them
    require_inputs_in_sight(with_data(study, **keys), study)


@pytest.mark.parametrize("command", ["plan", "prepare", "status", "sweep", "verify", "collect", "train"])
def test_every_command_refuses_them(command: str, study: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    from twinrun.cli.app import app

    with_data(study, table="labels.csv")
    monkeypatch.setattr(sys, "argv", ["twinrun", command])
    arguments = [command, "--index", "0"] if command == "train" else [command]
    with pytest.raises(InputError, match=r"labels\.csv: it is not below data/"):
        app(arguments, standalone_mode=False)


@pytest.mark.slow
def test_dvc_sees_behind_links_to_files_and_not_behind_those_to_folders(tmp_path: Path) -> None:
    """What the rule is made of; should it fail, DVC has learned to."""
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in ("file", "elsewhere/inside"):
        (tmp_path / name).write_text("old")
    (tmp_path / "data" / "file").symlink_to("../file")
    (tmp_path / "data" / "folder").symlink_to("../elsewhere")
    (tmp_path / "dvc.yaml").write_text("stages: {s: {cmd: 'true', deps: [data]}}\n")

    def dvc(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words], cwd=tmp_path, check=True, capture_output=True, text=True,
            env=os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site")},
        )  # fmt: skip
        return done.stdout

    dvc("init", "--no-scm", "-q")
    dvc("repro", "-q")
    (tmp_path / "elsewhere" / "inside").write_text("newer")
    assert "up to date" in dvc("status")
    (tmp_path / "file").write_text("newer")
    assert "modified" in dvc("status")
