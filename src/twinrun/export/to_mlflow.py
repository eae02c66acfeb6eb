"""Finished runs in a local MLflow store: a SQLite database and a folder of artifacts, both in the export's folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when the package is imported

import alembic  # noqa: F401 - with sqlalchemy what a SQLite store needs; missed here and not in the middle
import sqlalchemy  # noqa: F401
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from twinrun.export.exporting import Analysis, FinishedRun

MOST_METRICS = 1000  # of one call


class Writer:
    """One MLflow run for each run, and one named `study` for the tables and figures, in an experiment of the study."""

    def __init__(self, out: Path) -> None:
        self.out = out.resolve()
        self._client: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        """The store, made when it is first needed."""
        if self._client is None:
            self.out.mkdir(parents=True, exist_ok=True)
            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            self._client = MlflowClient(tracking_uri=f"sqlite:///{self.out / 'mlflow.db'}")
        return self._client

    def add_run(self, run: FinishedRun) -> None:
        """Values of each epoch under `curve/`, results as metrics, parameters, tags."""
        number = self._start(run.id, run.tags["twinrun.study"], run.tags, run.started)
        moment = int(1000 * run.finished)
        last = run.curve[-1][0] if run.curve else 0
        metrics = [
            Metric(f"curve/{name}", value, moment, epoch)
            for epoch, values in run.curve
            for name, value in values.items()
        ]
        metrics += [Metric(name, value, moment, last) for name, value in run.results.items()]
        self.client.log_batch(number, params=[Param(key, str(value)) for key, value in run.params.items()])
        for start in range(0, len(metrics), MOST_METRICS):
            self.client.log_batch(number, metrics=metrics[start : start + MOST_METRICS])
        self.client.set_terminated(number, "FINISHED", moment)

    def add_analysis(self, study: str, analysis: Analysis) -> None:
        """Tables as CSV and figures as PNG among the run's artifacts."""
        number = self._start("study", study, {"twinrun.run": "study", "twinrun.study": study}, None)
        for kind, shown in (("tables", analysis.tables), ("figures", analysis.figures)):
            for entry in shown:
                self.client.log_artifact(number, str(entry.path), kind)
        self.client.set_terminated(number, "FINISHED")

    def _start(self, name: str, study: str, tags: Mapping[str, str], started: float | None) -> str:
        experiment = self.client.get_experiment_by_name(f"twinrun/{study}")
        number = (
            experiment.experiment_id
            if experiment
            else self.client.create_experiment(f"twinrun/{study}", artifact_location=(self.out / "artifacts").as_uri())
        )
        for unfinished in self.client.search_runs([number], f"tags.`twinrun.run` = '{name}'"):
            self.client.delete_run(unfinished.info.run_id)
        moment = int(1000 * started) if started is not None else None
        run = self.client.create_run(number, start_time=moment, run_name=name, tags=dict(tags))
        self.client.log_batch(run.info.run_id, tags=[RunTag("mlflow.source.name", "twinrun export")])
        return str(run.info.run_id)
