"""The schema of collected/study.json: what `collect` and `import` write, and every reader relies on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from twinrun.study.documents import read_document
from twinrun.study.records import Sha256

COLLECTED_SCHEMA = 1
RECORDED = ("predictions", "probabilities", "weights", "measurements")  # what a study may have beside its metrics
METRICS = ("accuracy", "f1", "auc")


class _Block(BaseModel):
    model_config = ConfigDict(extra="allow")  # a later version may say more


class Grid(_Block):
    """The values of each factor in the order of the report."""

    tasks: Annotated[list[str], Field(min_length=1)]
    optimizers: Annotated[list[str], Field(min_length=1)]  # of an import: what the column `model` holds
    seeds: Annotated[list[int | str], Field(min_length=1)]  # `any`: the runs of all seeds together
    runs: Annotated[list[str], Field(min_length=1)]  # arm and number, such as nd_1


class Recipe(_Block):
    """How a task was trained, as far as it is known."""

    metric: str  # the main one


class TaskParams(_Block):
    """The params of a task; of an import only what the report says of it."""

    title: str
    recipe: Recipe
    data: dict[str, Any] = {}
    model: dict[str, Any] = {}


class LayerInfo(_Block):
    """A tensor outside the head."""

    name: str
    shape: list[int]
    recorded: Annotated[int, Field(ge=0)]  # coordinates; all of them, or a sample


class TaskInfo(_Block):
    """The test set of a task, and what was recorded of its runs."""

    classes: list[str]
    n_test: int | None  # null: not recorded, as in a table of metrics
    n_train: int | None = None
    procedural: bool = False  # drawn by a program
    data_digest: Sha256 | None = None
    remarks: list[str] = []
    head_epochs: list[int] = []  # checkpoints in heads.npy
    head_size: int = 0
    layers: list[LayerInfo] = []
    layer_rows: list[int] = []
    features_shape: list[int] | None = None
    flipping: list[int] | None = None  # places of the images in flipping.npy


class ImportedFile(_Block):
    """A file that was imported."""

    name: str
    sha256: Sha256


class Imported(_Block):
    """Where results that were made elsewhere come from."""

    files: Annotated[list[ImportedFile], Field(min_length=1)]
    columns: dict[str, list[str]]  # by role
    unread: list[str]  # columns that play no role
    recorded: list[Literal["predictions", "probabilities"]]
    metrics: Annotated[list[str], Field(min_length=1)]  # columns of results.csv, besides the loss
    words: dict[Literal["task", "optimizer", "seed"], str]  # what the factors are called


_OF_RUNS = ("execution", "grid_digest", "code_digest")
_OF_TASKS = ("n_train", "procedural", "data_digest", "remarks", "head_epochs", "head_size")


class StudyInfo(_Block):
    """study.json as a whole."""

    schema_version: Literal[1] = Field(alias="schema")
    study: str
    grid: Grid
    params: dict[str, TaskParams]
    tasks: dict[str, TaskInfo]
    runs: list[str]  # ids, in the order of the arrays' rows
    diverged: dict[str, str | None]
    analysis: dict[str, Any] = {}
    imported: Imported | None = None  # null: collected from records, and then the following are there
    execution: dict[str, Any] = {}
    grid_digest: Sha256 | None = None
    code_digest: Sha256 | None = None

    @model_validator(mode="after")
    def _whole(self) -> StudyInfo:
        for task in self.grid.tasks:
            for name, block in (("tasks", self.tasks), ("params", self.params)):
                if task not in block:
                    raise ValueError(f"{name}.{task} is missing")
        if self.imported is None:
            for key in _OF_RUNS:
                if key not in self.model_fields_set:
                    raise ValueError(f"{key} is missing")
            for task in self.grid.tasks:
                for key in _OF_TASKS:
                    if key not in self.tasks[task].model_fields_set:
                        raise ValueError(f"tasks.{task}.{key} is missing")
                if "reader" not in self.params[task].data:
                    raise ValueError(f"params.{task}.data.reader is missing")
                if "model" not in self.params[task].model_fields_set:
                    raise ValueError(f"params.{task}.model is missing")
        return self


class Digests(RootModel[dict[str, Sha256]]):
    """digests.json: the SHA-256 of every other file, by its path."""


class TwinOfResult(_Block):
    """One twin, as far as an import needs it."""

    number: int
    seed: int
    folder: str


class MetricOfResult(_Block):
    """One number over the twins, by the twin's name."""

    name: str
    values: dict[str, float]


class TwinsResult(_Block):
    """twins.json, as far as an import or a comparison needs it."""

    arm: str
    metrics: list[MetricOfResult] = []
    twins: list[TwinOfResult] = []


def read_twins(folder: Path) -> TwinsResult:
    """What a folder of `twinrun twins` holds; InputError or MismatchError where it is none."""
    path = folder / "twins.json"
    return read_document(path, TwinsResult, "a result of `twinrun twins`", "run `twinrun twins` again")
