"""The params file: every key with its meaning, range and unit; read and checked before anything runs."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from twinrun.study.errors import InputError
from twinrun.study.files import digest, explain_os_error
from twinrun.study.grid import Run, expand, find, parse_label

PARAMS_SCHEMA = 1

# DVC joins the axis values of a stage's name and drops colliding ones silently: nothing else may be in them.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Grid(_Block):
    """Which runs the study has: the product of the four lists, in their order."""

    tasks: Annotated[list[Name], Field(min_length=1)]
    optimizers: Annotated[list[Literal["adam", "sgd"]], Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
    runs: Annotated[list[str], Field(min_length=1)]

    @field_validator("tasks", "optimizers", "seeds", "runs")
    @classmethod
    def _unique(cls, values: list[Any]) -> list[Any]:
        doubles = sorted({str(value) for value in values if values.count(value) > 1})
        if doubles:
            raise ValueError(f"{', '.join(doubles)} stands there twice; every value may stand there once")
        return values

    @field_validator("runs")
    @classmethod
    def _labels(cls, values: list[str]) -> list[str]:
        for value in values:
            try:
                parse_label(value)
            except InputError as error:
                raise ValueError(f"{error.message}; {error.hint}") from error
        return values


class Execution(_Block):
    """How every run is executed."""

    device: Literal["cpu", "cuda", "auto"]  # auto: CUDA when there is one
    noise: Literal["auto", "native", "reorder", "ulp"]  # auto: native on CUDA, reorder on a CPU
    precision: Literal["fp32", "tf32"]
    fill_uninitialized_memory: bool  # most of deterministic mode's cost; changes no bits


class _Source(_Block):
    source: Annotated[str, Field(min_length=1)]  # archive or unpacked folder, relative to the params file
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None  # of the archive, when known
    image_size: Annotated[int, Field(ge=8, le=4096)]  # side of the packed square images, pixels
    procedural: bool = False  # drawn by a program, not photographed: shown wherever results are shown


class Cifar10(_Source):
    """CIFAR-10, python version: its own train and test batches."""

    reader: Literal["cifar10"]


class Sdnet2018(_Source):
    """SDNET2018: tiles in D|P|W / C?|U? folders, split by photo."""

    reader: Literal["sdnet2018"]
    test_share: Share
    split_seed: Annotated[int, Field(ge=0)]


class CbisDdsm(_Source):
    """CBIS-DDSM: case-description CSVs and DICOM in TCIA's folders, the publisher's own train and test lists."""

    reader: Literal["cbis_ddsm"]
    view: Literal["full", "crop"]  # whole mammograms, or the cropped abnormalities


class ModelSpec(_Block):
    """The network."""

    name: Literal["preactresnet18", "mobilenet_v3_small", "mobilenet_v3_large", "resnet18", "resnet50"]
    width: Above = 1.0  # factor on the channels of every layer
    pretrained: str | None = None  # safetensors or torchvision .pth weights, relative to the params file; width 1 only

    @model_validator(mode="after")
    def _full_width(self) -> ModelSpec:
        if self.pretrained and self.width != 1.0:
            raise ValueError("pretrained weights fit width 1.0 only")
        if self.pretrained and self.name == "preactresnet18":
            raise ValueError("there are no pretrained weights for preactresnet18")
        return self


class Augment(_Block):
    """What is drawn anew for every example and epoch."""

    crop_padding: Annotated[int, Field(ge=0, le=64)] = 0  # zero padding before a random crop, pixels
    horizontal_flip: bool = False
    vertical_flip: bool = False


class Recipe(_Block):
    """How a task is trained, whatever the optimizer."""

    epochs: Positive
    batch_size: Annotated[int, Field(ge=2)]
    heads_every: Positive  # epochs between two recorded copies of the head
    augment: Augment = Augment()
    metric: Literal["accuracy", "f1", "auc"]  # the task's main metric


class Exponential(_Block):
    """lr(t) = lr * factor^(t / period_epochs), t in epochs."""

    kind: Literal["exponential"]
    factor: Annotated[float, Field(gt=0, le=1)]
    period_epochs: Above = 1.0


class Cosine(_Block):
    """lr(t) = lr_min + (lr - lr_min) (1 + cos(pi t / t_max_epochs)) / 2, t in epochs; it rises again after t_max."""

    kind: Literal["cosine"]
    t_max_epochs: Positive
    lr_min: NotNegative = 0.0


Schedule = Annotated[Exponential | Cosine, Discriminator("kind")]


class Adam(_Block):
    """Adam with L2 weight decay added to the gradient."""

    lr: Above
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Above = 1e-8
    weight_decay: NotNegative = 0.0
    schedule: Schedule


class Sgd(_Block):
    """SGD with momentum and L2 weight decay."""

    lr: Above
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False
    weight_decay: NotNegative = 0.0
    schedule: Schedule


class TaskOptimizers(_Block):
    """The settings of each optimizer of the grid."""

    adam: Adam | None = None
    sgd: Sgd | None = None


class Task(_Block):
    """A data set, a model and a recipe."""

    title: Annotated[str, Field(min_length=1)]
    data: Annotated[Cifar10 | Sdnet2018 | CbisDdsm, Discriminator("reader")]
    model: ModelSpec
    recipe: Recipe
    optimizers: TaskOptimizers

    def optimizer(self, name: str) -> Adam | Sgd:
        """The settings of that optimizer."""
        settings: Adam | Sgd | None = getattr(self.optimizers, name)
        assert settings is not None  # Params checks it for every optimizer of the grid
        return settings


class Params(_Block):
    """A whole study."""

    schema_version: Literal[1] = Field(alias="schema")
    study: Name
    grid: Grid
    execution: Execution
    tasks: dict[Name, Task]

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        for name in self.grid.tasks:
            if name not in self.tasks:
                raise ValueError(f"grid.tasks names {name!r}, which is not under tasks ({', '.join(self.tasks)})")
            for optimizer in self.grid.optimizers:
                if getattr(self.tasks[name].optimizers, optimizer) is None:
                    raise ValueError(f"grid.optimizers names {optimizer!r}, which tasks.{name}.optimizers lacks")
        if self.execution.noise == "native" and self.execution.device == "cpu":
            raise ValueError("execution.noise: native noise needs CUDA; a CPU run has none: use auto, reorder or ulp")
        return self

    @property
    def runs(self) -> list[Run]:
        """Every run of the grid in its stable order."""
        return expand(self.grid.tasks, self.grid.optimizers, self.grid.seeds, self.grid.runs)

    def find(self, run_id: str) -> Run:
        """The run of that id."""
        return find(self.runs, run_id)

    def run_digest(self, run: Run) -> str:
        """SHA-256 of exactly the keys that this run reads; the device is recorded apart, as a fact."""
        task = self.tasks[run.task]
        return digest(
            {
                "schema": PARAMS_SCHEMA,
                "execution": self.execution.model_dump(exclude={"device"}),
                "data": task.data.model_dump(),
                "model": task.model.model_dump(),
                "recipe": task.recipe.model_dump(),
                "optimizer": {run.optimizer: task.optimizer(run.optimizer).model_dump()},
            }
        )

    @property
    def grid_digest(self) -> str:
        """SHA-256 of the grid and of what each of its runs reads."""
        return digest([(run.id, self.run_digest(run)) for run in self.runs])


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a later key silently replace an earlier one; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} stands there twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_params(path: Path) -> Params:
    """Read and check a params file.

    Raises InputError naming the file, the key, the value and what is allowed, all mistakes at once.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", "run in the study folder, or name one with --params") from error
    except OSError as error:
        raise explain_os_error(error, path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: a params file is a mapping with the keys {', '.join(_keys(Params))}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(_sentence(path, item, content) for item in error.errors())) from error


def _keys(block: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in block.model_fields.items()]


# Where an unknown key can stand: the block of each key path, the discriminated ones by their tag.
_BLOCKS: dict[str, type[BaseModel]] = {
    "": Params, "grid": Grid, "execution": Execution, "task": Task, "model": ModelSpec, "recipe": Recipe,
    "augment": Augment, "optimizers": TaskOptimizers, "adam": Adam, "sgd": Sgd, "cifar10": Cifar10,
    "sdnet2018": Sdnet2018, "cbis_ddsm": CbisDdsm, "exponential": Exponential, "cosine": Cosine,
}  # fmt: skip


def _sentence(path: Path, item: Any, content: Any) -> str:
    location = [str(part) for part in item["loc"]]
    # pydantic puts the discriminator's value into the location of a union: it is no key of the file.
    shown, node = [], content
    for part in location:
        if isinstance(node, dict) and part not in map(str, node) and part in _BLOCKS and part != location[-1]:
            continue
        shown.append(part)
        node = node.get(part) if isinstance(node, dict) else None
    where = f"{path}: {'.'.join(shown)}" if shown else str(path)
    match item["type"]:
        case "extra_forbidden":
            parents = location[:-1]
            block = Task if len(parents) == 2 and parents[0] == "tasks" else _BLOCKS.get(parents[-1] if parents else "")
            allowed = _keys(block) if block else []
            near = get_close_matches(location[-1], allowed, n=1)
            suggestion = f"did you mean {near[0]!r}? " if near else ""
            return f"{where}: unknown key; {suggestion}allowed here: {', '.join(allowed)}"
        case "missing":
            return f"{where}: this key is missing"
        case "value_error":
            return f"{where}: {item['ctx']['error']!s}"
        case "string_pattern_mismatch":
            return f"{where}: {item['input']!r} is not allowed; use small letters, digits and _ only"
        case _:
            detail = item["msg"][0].lower() + item["msg"][1:]
            value = item["input"]
            got = f"; got {value!r}" if isinstance(value, (str, int, float, bool, type(None))) else ""
            return f"{where}: {detail}{got}"
