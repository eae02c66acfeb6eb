"""How much the scores on cracks depend on which photos are tested; python splits.py DATA writes splits.csv.

The recipe of `cracks` in params.yaml on six draws of the test photos (`split_seed` 0 to 5; 0 is the study's own):
one deterministic run of Adam.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from twinrun.collect.study import load_study

HERE = Path(__file__).parent
SPLITS = range(6)

data = Path(sys.argv[1]).resolve()
with tempfile.TemporaryDirectory() as folder:
    study = Path(folder)
    subprocess.run([sys.executable, HERE / "subset.py", data, study / "data"], check=True)
    shutil.copytree(HERE / "models", study / "models")
    (study / "data" / "cracks.tar.xz").symlink_to(data / "cracks.tar.xz")
    params = yaml.safe_load((HERE / "params.yaml").read_text())
    cracks = params["tasks"]["cracks"]
    params["tasks"] = {
        f"split_{split}": cracks | {"data": cracks["data"] | {"split_seed": split}, "show_images": False}
        for split in SPLITS
    }
    params["grid"] |= {"tasks": list(params["tasks"]), "optimizers": ["adam"], "seeds": [0], "runs": ["det_1"]}
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    for command in ("prepare", "sweep --no-record", "collect"):
        words = [sys.executable, "-m", "twinrun", *command.split()]
        subprocess.run(words, cwd=study, env=environment, check=True)
    collected = load_study(study / "collected")
    rows = []
    for run in collected.results.itertuples():
        labels = collected.labels(run.task)
        share = float((labels == 1).mean())
        rows.append({
            "split_seed": run.task.removeprefix("split_"), "test_images": len(labels),
            "f1_of_naming_all": round(2 * share / (1 + share), 4), "f1": round(run.f1, 4), "auc": round(run.auc, 4),
        })  # fmt: skip
with (HERE / "splits.csv").open("w", newline="") as stream:
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
