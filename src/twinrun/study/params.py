"""The study: its params file read and checked before anything runs, and what each run reads of it."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from twinrun.study import schema
from twinrun.study.documents import Block, Name
from twinrun.study.errors import InputError
from twinrun.study.files import digest, explain_os_error
from twinrun.study.grid import Run, expand, find
from twinrun.study.layout import Layout
from twinrun.study.records import Expected, state_of
from twinrun.study.schema import Analysis, Execution, Grid, Task
from twinrun.study.schema_model import ModelSpec, factory_file, models_digest
from twinrun.study.yaml12 import YamlError, load_yaml

PARAMS_SCHEMA = 1
SHOWN_CHARACTERS = 80  # of a value that an error names


class Params(Block):
    """A whole study."""

    schema_version: Literal[1] = Field(alias="schema")
    study: Name
    grid: Grid
    execution: Execution
    analysis: Analysis = Analysis()
    tasks: dict[Name, Task]
    _models: str | None = PrivateAttr(None)  # digest of the user's own model code, where a task has such a model

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
        if self.execution.channels_last and self.execution.device == "cpu":
            raise ValueError("execution.channels_last: true is for CUDA devices only; set it to false for a CPU")
        if self.execution.cpu_bits == "this_cpu" and self.execution.device != "cpu":
            raise ValueError("execution.cpu_bits: this_cpu is for device cpu only; leave it out for another")
        return self

    @property
    def runs(self) -> list[Run]:
        """Every run of the grid in its stable order."""
        return expand(self.grid.tasks, self.grid.optimizers, self.grid.seeds, self.grid.runs)

    def find(self, run_id: str) -> Run:
        """The run of that id."""
        return find(self.runs, run_id)

    def run_digest(self, run: Run) -> str:
        """SHA-256 of exactly the keys that this run reads, and of the code of a model of the user's own.

        The device is recorded apart, as a fact; so is whether the record has the network, which changes nothing else.
        Keys at their default are left out, so that a new optional key changes no digest; the defaults themselves are
        in the code digest.
        """
        task = self.tasks[run.task]
        own_code = {"models": self._models} if task.model.factory else {}
        return digest(
            own_code
            | {
                "schema": PARAMS_SCHEMA,
                "execution": self.execution.model_dump(exclude={"device"}, exclude_defaults=True),
                "data": task.data.model_dump(exclude_defaults=True),
                "model": task.model.model_dump(exclude_defaults=True),
                "recipe": task.recipe.model_dump(exclude_defaults=True),
                "optimizer": {run.optimizer: task.optimizer(run.optimizer).model_dump(exclude_defaults=True)},
            }
        )

    @property
    def models_digest(self) -> str | None:
        """The digest of the study's models/ as it was when the params were read; None: no task has a model from it."""
        return self._models

    def keeps_model(self, run: Run) -> bool:
        """Whether the record of that run holds its trained network."""
        return self.tasks[run.task].keep_model.get(run.arm) == "final"

    def data_params_digest(self, task: str) -> str:
        """SHA-256 of the keys that preparing the task's data reads."""
        return digest(self.tasks[task].data.model_dump(exclude_defaults=True))

    def expected(self, run: Run, data_digest: str | None, code: str) -> Expected:
        """What the record of a run must be whose data and code have these digests now."""
        device = self.execution.device
        devices = ("cpu", "cuda") if device == "auto" else (device,)
        epochs = self.tasks[run.task].recipe.epochs
        return Expected(run.id, self.run_digest(run), code, data_digest, devices, epochs, self.keeps_model(run))

    def state_of(self, run: Run, layout: Layout, data_digest: str | None, code: str) -> str:
        """What there is of a run whose data and code have these digests now; see `records.state_of`."""
        return state_of(layout.run(run), self.expected(run, data_digest, code))

    @property
    def grid_digest(self) -> str:
        """SHA-256 of the grid and of what each of its runs reads."""
        return digest([(run.id, self.run_digest(run)) for run in self.runs])


def read_params(path: Path, root: Path = Path()) -> Params:
    """Read and check a params file; `root` is the study folder, where the user's own models lie.

    Raises InputError naming the file, the key, the value and what is allowed, all mistakes at once.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: a folder, a pipe or a device, no file", "name the params file with --params")
        content = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", "run in the study folder, or name one with --params") from error
    except OSError as error:
        raise explain_os_error(error, path) from error
    except RecursionError as error:
        raise InputError(f"{path}: not valid YAML: lists or keys within each other without end") from error
    except (YamlError, ValueError) as error:  # of text that is no UTF-8, and of numbers of thousands of digits
        said = " ".join(str(error).split()).replace('in "<unicode string>", ', "")
        raise InputError(f"{path}: not valid YAML: {said}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: a params file is a mapping with the keys {', '.join(_keys(Params))}")
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(_sentence(path, item, content) for item in error.errors())) from error
    factories = [task.model.factory for task in params.tasks.values() if task.model.factory]
    for factory in factories:
        factory_file(factory, root)
    if factories:
        params._models = models_digest(root)
    return params


def _keys(block: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in block.model_fields.items()]


# Where an unknown key can stand: the block of each key path, the discriminated ones by their tag.
_BLOCKS: dict[str, type[BaseModel]] = {
    "": Params, "grid": Grid, "execution": Execution, "analysis": Analysis, "task": Task, "model": ModelSpec,
    "recipe": schema.Recipe, "augment": schema.Augment, "optimizers": schema.TaskOptimizers, "adam": schema.Adam,
    "adamw": schema.AdamW, "step": schema.Step,
    "sgd": schema.Sgd, "cifar10": schema.Cifar10, "sdnet2018": schema.Sdnet2018, "cbis_ddsm": schema.CbisDdsm,
    "image_folder": schema.ImageFolder,
    "exponential": schema.Exponential, "cosine": schema.Cosine,
}  # fmt: skip


def _sentence(path: Path, item: Any, content: Any) -> str:
    location = [str(part) for part in item["loc"]]
    # pydantic puts the discriminator's value into the location of a union: it is no key of the file.
    shown, node = [], content
    keys = len(location) - (item["type"] == "missing")  # a key that is missing is no discriminator
    for place, part in enumerate(location):
        if isinstance(node, dict) and part not in map(str, node) and part in _BLOCKS and place < keys:
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
        case "union_tag_invalid":
            key, tag = str(item["ctx"]["discriminator"]).strip("'"), item["ctx"]["tag"]
            return f"{where}.{key}: {tag!r} is not known; allowed: {item['ctx']['expected_tags']}"
        case "missing":
            return f"{where}: this key is missing"
        case "value_error":
            return f"{where}: {item['ctx']['error']!s}"
        case "string_pattern_mismatch":
            return f"{where}: {item['input']!r} is not allowed; use small letters, digits and _ only"
        case _:
            detail = item["msg"][0].lower() + item["msg"][1:]
            value = item["input"]
            plain = isinstance(value, (str, int, float, bool, type(None)))
            text = repr(value) if len(repr(value)) <= SHOWN_CHARACTERS else f"{repr(value)[:SHOWN_CHARACTERS]}..."
            got = f"; got {text}" if plain else ""
            return f"{where}: {detail}{got}"
