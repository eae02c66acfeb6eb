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
CURVE_COLUMNS = ("epoch", "learning_rate", "train_loss", "accuracy", "f1", "auc", "loss", "fingerprint")
# What is a pure function of code, data, params and noise: compared byte by byte. MEASURED is not among them.
COMPUTED_FILES = (CURVE, PREDICTIONS, WEIGHTS)


@dataclass(frozen=True)
class Layout:
    """Paths below the study folder `root` (where params.yaml and dvc.yaml lie).

    `out` puts the runs of single experiments and of verification somewhere else.
    """

    root: Path = Path()
    out: Path | None = None

    @property
    def data(self) -> Path:
        """Archives as their publishers made them, tracked by data.dvc."""
        return self.root / "data"

    def prepared(self, task: str) -> Path:
        """Packed arrays of one task: images.npy, labels.npy, ids.csv, manifest.json."""
        return self.root / "prepared" / task

    def run(self, run: Run) -> Path:
        """The record of one run."""
        return (self.out or self.root / "runs") / run.id

    def work(self, run: Run) -> Path:
        """Checkpoint, lock and recorded noise of a run in progress; outside DVC's outs."""
        return (self.out or self.root) / "work" / run.id

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

    @property
    def expected(self) -> Path:
        """Committed fingerprints of deterministic runs."""
        return self.root / "expected" / "fingerprints.json"
