"""The blocks of a params file: every key with its meaning, range and unit."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from twinrun.study.documents import Above, Block, Name, NotNegative, Positive, Share
from twinrun.study.errors import InputError
from twinrun.study.grid import ARMS, parse_label
from twinrun.study.pins import CpuBits
from twinrun.study.schema_model import ModelSpec


class Grid(Block):
    """Which runs the study has: the product of the four lists, in their order."""

    tasks: Annotated[list[Name], Field(min_length=1)]
    optimizers: Annotated[list[Literal["adam", "adamw", "sgd"]], Field(min_length=1)]
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


class Execution(Block):
    """How every run is executed."""

    device: Literal["cpu", "cuda", "auto"]  # auto: CUDA when there is one
    noise: Literal["auto", "native", "reorder", "ulp"]  # auto: native on CUDA, reorder on a CPU
    precision: Literal["fp32", "tf32", "bf16"]  # bf16: mixed, weights and optimizer in float32
    channels_last: bool = False  # memory format on CUDA: faster on cards with tensor cores, other bits
    cpu_bits: CpuBits = "anywhere"  # on every x86-64 with AVX2; or by this processor's own instructions, faster
    fill_uninitialized_memory: bool  # most of deterministic mode's cost; changes no bits


class Analysis(Block):
    """What the analysis takes for granted; no run reads it."""

    # Difference between two means that does not matter, in percentage points of a metric in [0, 1].
    equivalence_margin_points: Annotated[float, Field(gt=0, le=100)] = 0.5
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05  # level of the tests


class _Source(Block):
    source: Annotated[str, Field(min_length=1)]  # archive or unpacked folder, relative to the params file
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None  # of the archive, when known
    image_size: Annotated[int, Field(ge=8, le=4096)]  # side of the packed square images, pixels
    procedural: bool = False  # drawn by a program, not photographed: shown wherever results are shown
    on_error: Literal["error", "skip"] = "error"  # damaged or missing images: stop, or leave out and record which


class Cifar10(_Source):
    """CIFAR-10, python version: its own train and test batches."""

    reader: Literal["cifar10"]


class Sdnet2018(_Source):
    """SDNET2018: tiles in D|P|W / C?|U? folders, split by photo."""

    reader: Literal["sdnet2018"]
    test_share: Share
    split_seed: Annotated[int, Field(ge=0, lt=2**63)]


class CbisDdsm(_Source):
    """CBIS-DDSM: case-description CSVs, and DICOM in TCIA's folders or the JPEG copy with its dicom_info.csv."""

    reader: Literal["cbis_ddsm"]
    view: Literal["full", "crop"]  # whole mammograms, or the cropped abnormalities
    breast_crop: bool = False  # cut whole mammograms to the breast: film labels and empty film go

    @model_validator(mode="after")
    def _crop_of_full(self) -> CbisDdsm:
        if self.breast_crop and self.view == "crop":
            raise ValueError("breast_crop is for whole mammograms (view: full)")
        return self


class ImageFolder(_Source):
    """Any images: train/<class>/ and test/<class>/; or <class>/, to be split; or a table of paths."""

    reader: Literal["image_folder"]
    table: Annotated[str, Field(min_length=1)] | None = None  # CSV: path, label[, split][, group]; beside the params
    classes: Annotated[list[str], Field(min_length=2)] | None = None  # their order; null: by name
    positive: str | None = None  # of two classes that of which F1 and AUC are; null: the second of `classes`
    color: Literal["rgb", "gray"] = "rgb"  # every image is made so
    fit: Literal["pad", "crop", "stretch"] = "pad"  # of non-square images: black added, the middle cut out, distorted
    group_pattern: str | None = None  # regular expression: what it finds in a file's name stays on one side
    test_share: Share | None = None  # where the images have no split: share of the groups (else of the images)
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> ImageFolder:
        if (self.test_share is None) != (self.split_seed is None):
            raise ValueError("test_share and split_seed go together")
        if self.table and self.group_pattern:
            raise ValueError("a table says the groups in its column group: remove group_pattern")
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError("classes names one twice")
        if self.classes and self.positive and self.positive != self.classes[1]:
            raise ValueError("positive is the second of two classes: name it second in classes, or leave classes out")
        try:
            re.compile(self.group_pattern or "")
        except re.error as error:
            raise ValueError(f"group_pattern is no regular expression: {error}") from error
        return self


class Augment(Block):
    """What is drawn anew for every example and epoch."""

    crop_padding: Annotated[int, Field(ge=0, le=64)] = 0  # zero padding before a random crop, pixels
    horizontal_flip: bool = False
    vertical_flip: bool = False


class Recipe(Block):
    """How a task is trained, whatever the optimizer."""

    epochs: Positive
    batch_size: Annotated[int, Field(ge=2, lt=2**31)]
    heads_every: Positive  # epochs between two recorded copies of the head and samples of the other layers
    # Test images whose features (the head's input) are recorded after the last epoch: 0 none, else 4 or more (CKA).
    features: Annotated[int, Field(ge=0, lt=2**31)] = 0
    augment: Augment = Augment()
    # What an example weighs in the training loss: balanced: examples / (classes * examples of its class).
    class_weights: Literal["none", "balanced"] = "none"
    metric: Literal["accuracy", "f1", "auc"]  # the task's main metric

    @field_validator("features")
    @classmethod
    def _enough(cls, value: int) -> int:
        if 0 < value < 4:
            raise ValueError(f"{value} images are too few for CKA without bias; 0 for none, else 4 or more")
        return value


class _Schedule(Block):
    """In the first `warmup_epochs` the rate rises by lr / (warmup_epochs + 1) an epoch; t is counted after them."""

    warmup_epochs: Annotated[int, Field(ge=0, lt=2**63)] = 0


class Exponential(_Schedule):
    """lr(t) = lr * factor^(t / period_epochs), t in epochs."""

    kind: Literal["exponential"]
    factor: Annotated[float, Field(gt=0, le=1)]
    period_epochs: Above = 1.0


class Cosine(_Schedule):
    """lr(t) = lr_min + (lr - lr_min) (1 + cos(pi t / t_max_epochs)) / 2, t in epochs; it rises again after t_max."""

    kind: Literal["cosine"]
    t_max_epochs: Positive
    lr_min: NotNegative = 0.0


class Step(_Schedule):
    """lr(t) = lr * factor^(how many of `epochs` are not after t), t in epochs."""

    kind: Literal["step"]
    factor: Annotated[float, Field(gt=0, le=1)]
    epochs: Annotated[list[Positive], Field(min_length=1)]


Schedule = Annotated[Exponential | Cosine | Step, Discriminator("kind")]


class Adam(Block):
    """Adam with L2 weight decay added to the gradient."""

    lr: Above
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Above = 1e-8
    weight_decay: NotNegative = 0.0
    schedule: Schedule


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights apart from the gradient."""


class Sgd(Block):
    """SGD with momentum and L2 weight decay."""

    lr: Above
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: NotNegative = 0.0
    schedule: Schedule


class TaskOptimizers(Block):
    """The settings of each optimizer of the grid."""

    adam: Adam | None = None
    adamw: AdamW | None = None
    sgd: Sgd | None = None


class Task(Block):
    """A data set, a model and a recipe."""

    title: Annotated[str, Field(min_length=1)]
    # Whether the licence allows pictures of the data in a report; beside `data`: no stage but collect reads it.
    show_images: bool = False
    # Arms whose runs keep their network after the last epoch. Beside `recipe`, which DVC watches: runs that are there
    # already are the same with it or without, and those of other arms must not be trained again for it.
    keep_model: dict[str, Literal["none", "final"]] = Field(default_factory=dict)
    data: Annotated[Cifar10 | Sdnet2018 | CbisDdsm | ImageFolder, Discriminator("reader")]
    model: ModelSpec
    recipe: Recipe
    optimizers: TaskOptimizers

    @field_validator("keep_model")
    @classmethod
    def _arms(cls, value: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(value.keys() - ARMS.keys()):
            raise ValueError(f"{unknown[0]!r} is no arm; arms: {', '.join(ARMS)}")
        return value

    def optimizer(self, name: str) -> Adam | Sgd:
        """The settings of that optimizer."""
        settings: Adam | Sgd | None = getattr(self.optimizers, name)
        assert settings is not None  # Params checks it for every optimizer of the grid
        return settings
