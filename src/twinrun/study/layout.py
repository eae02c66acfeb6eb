"""Every path of a study folder, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from twinrun.study.grid import Run

RECORD = "record.json"
MEASURED = "measured.json"
CURVE = "curve.csv"
PREDICTIONS = "predictions.npz"
WEIGHTS = "weights.safetensors"
MODEL = "model.safetensors"  # the trained network, of runs whose recipe keeps it
CHECKPOINT = "checkpoint.safetensors"  # of a run in progress
LOCK = "lock"  # held while a run is being trained
CURVE_COLUMNS = ("epoch", "learning_rate", "train_loss", "accuracy", "f1", "auc", "loss", "fingerprint")
IMAGE_FACTS = Path("/opt/twinrun/image.json")  # in a container image: what went into it
# What is a pure function of code, data, params and noise: compared byte by byte. MEASURED is not among them.
COMPUTED_FILES = (CURVE, PREDICTIONS, WEIGHTS)


@dataclass(frozen=True)
class Layout:
    """Paths below the study folder `root` (where params.yaml and dvc.yaml lie).

    `out` puts the runs of single experiments and of verification somewhere else; `arrays` is where a copy of prepared/
    is read instead, such as on a node's own disk.
    """

    root: Path = Path()
    out: Path | None = None
    arrays: Path | None = None

    @property
    def source(self) -> Path:
        """The package's code, in a checkout."""
        return self.root / "src" / "twinrun"

    @property
    def data(self) -> Path:
        """Archives as their publishers made them, tracked by data.dvc."""
        return self.root / "data"

    @property
    def models(self) -> Path:
        """The user's own model code, a dependency of every run in dvc.yaml."""
        return self.root / "models"

    def prepared(self, task: str) -> Path:
        """Packed arrays of one task: images.npy, labels.npy, ids.csv, manifest.json."""
        return (self.arrays or self.root / "prepared") / task

    @property
    def runs(self) -> Path:
        """The records, each at its run's id."""
        return self.out or self.root / "runs"

    def run(self, run: Run) -> Path:
        """The record of one run."""
        return self.runs / run.id

    def work(self, run: Run) -> Path:
        """Checkpoint, lock and recorded noise of a run in progress; outside DVC's outs."""
        return (self.out or self.root) / "work" / run.id

    def first_difference(self, first: Run, second: Run) -> Path:
        """The stem of the files in which `twinrun locate` says where a pair of runs first differs."""
        return self.root / "work" / "located" / first.cell / f"{first.label}-{second.id.replace('/', '_')}"

    @property
    def located(self) -> Path:
        """Where runs first differ: <task>.json and <task>.csv for each task of the study."""
        return self.root / "located"

    @property
    def sweep_lock(self) -> Path:
        """Held by the one process that records the study in DVC."""
        return self.root / "work" / "sweep.lock"

    @property
    def logs(self) -> Path:
        """What runs in the background have printed."""
        return self.root / "logs"

    @property
    def slurm(self) -> Path:
        """Scripts for a SLURM cluster, and the site's own lines for them."""
        return self.root / "slurm"

    def unfinished(self) -> list[Path]:
        """The notes of attempts in work/: of runs that were begun and have not left a record."""
        return sorted((self.out or self.root).glob("work/*/*/*/*/attempt.json"))

    @property
    def collected(self) -> Path:
        """The study in a few files: enough to rebuild every number and figure."""
        return self.root / "collected"

    @property
    def analysis(self) -> Path:
        """Tables, statistics and figures."""
        return self.root / "analysis"

    @property
    def report(self) -> Path:
        """The folder of report/index.html."""
        return self.root / "report"

    def cost(self, name: str) -> Path:
        """Step times that `twinrun cost` measured."""
        return self.root / "cost" / f"{name}.json"

    def export(self, target: str) -> Path:
        """What was exported to another tracker."""
        return self.root / "export" / target

    @property
    def expected(self) -> Path:
        """Committed fingerprints of deterministic runs."""
        return self.root / "expected" / "fingerprints.json"
