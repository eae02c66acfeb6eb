"""The forecast asks cuDNN as PyTorch would, about cards that are not here, and touches no device."""

from __future__ import annotations

import ctypes
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.test_cli import Cli, cli  # noqa: F401 - a fixture
from torch import nn
from torch.nn import functional

from twinrun.inspect.cudnn import backend, devices
from twinrun.inspect.cudnn.backend import FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, strides
from twinrun.inspect.cudnn.devices import find_card, known_cards, sourced
from twinrun.inspect.cudnn.forecast import (
    CUDNN,
    FREE_OF_ATOMICS,
    PYTORCH,
    REFUSED,
    Answer,
    Forecast,
    Setting,
    advice,
    distinct,
    forecast,
    problem_of,
    verdict,
)
from twinrun.inspect.cudnn.operations import ATTENTION, Convolution, OtherCall, Step, step_of
from twinrun.inspect.nondeterministic_ops import Hazard
from twinrun.inspect.targets import step_of_model
from twinrun.study.errors import InputError
from twinrun.study.layout import Layout
from twinrun.study.schema_model import ModelSpec
from twinrun.training.numerics import flags_kept

FP32, TF32, BF16 = Setting("fp32", "NCHW"), Setting("tf32", "NCHW"), Setting("bf16", "NHWC")

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.width, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x):
        x = nn.functional.interpolate(self.stem(x), scale_factor=2, mode="bilinear").flatten(2).transpose(1, 2)
        q, k, v = self.width(x).chunk(3, -1)
        return self.head(nn.functional.scaled_dot_product_attention(q, k, v).mean(1))

def make():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, nn.CrossEntropyLoss(), optimizer, (torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))

def half():
    return 1, 2
"""


@pytest.fixture(scope="module")
def preactresnet18() -> Step:
    return step_of_model(ModelSpec(name="preactresnet18"), 10, 128, 32, Path())


def step_of_layer(layer: nn.Module, *shape: int) -> Step:
    """The step of one layer, named `layer`, on an input of that shape that needs a gradient."""
    model = nn.Sequential()
    model.add_module("layer", layer)
    batch = torch.empty(shape, device="meta", requires_grad=True), torch.empty(1, device="meta")
    return step_of(model, lambda output, _: output.sum(), batch)


def answers(step: Step, setting: Setting, card: str = "H100 SXM") -> dict[str, Answer]:
    """By operation, of a step with one convolution."""
    return {row.convolution.operation: row.answer for row in forecast(step, find_card(card), setting).rows}


# First choice nondeterministic, one of PyTorch's first ten nondeterministic: of 32 distinct convolutions, with cuDNN
# 9.19 of torch 2.11. Found at first by a program that shares no code with this one.
PREACTRESNET18 = {
    "H100 SXM": ((14, 21), (3, 3), (0, 0)),
    "A100 80GB": ((17, 21), (1, 1), (0, 0)),
    "RTX A6000": ((15, 21), (4, 7), (0, 0)),
    "RTX 4090": ((11, 21), (4, 8), (0, 0)),
    "B200": ((17, 21), (1, 1), (0, 0)),
}


@pytest.mark.parametrize("card", PREACTRESNET18)
def test_preactresnet18_by_card_and_setting(card: str, preactresnet18: Step) -> None:
    results = [forecast(preactresnet18, find_card(card), setting) for setting in (FP32, TF32, BF16)]
    assert tuple((r.count("nondeterministic"), r.count("autotuned")) for r in results) == PREACTRESNET18[card]
    assert [len(r.rows) for r in results] == [32, 32, 32]
    assert [r.count("refused") + r.without_deterministic_engine() for r in results] == [0, 0, 0]
    assert verdict(preactresnet18, results[2]) == FREE_OF_ATOMICS
    pooled = OtherCall("backward", "max_pool3d", "", Hazard("adds in any order", "another one"))
    assert verdict(replace(preactresnet18, others=[pooled]), results[2]) == "1 operation by atomics"
    calls = results[0].nondeterministic_calls()
    assert verdict(preactresnet18, results[0]) == f"{calls} operations by atomics"
    assert calls > results[0].count("nondeterministic")  # layers of one shape share a choice
    lines = advice(preactresnet18, results)
    assert "in bf16 NHWC no convolution has a nondeterministic engine to choose" in lines


def test_a_card_before_ampere_has_neither_tf32_nor_bfloat16(preactresnet18: Step) -> None:
    card = find_card("T4")
    fp32 = forecast(preactresnet18, card, FP32)
    assert (fp32.count("nondeterministic"), fp32.count("autotuned")) == (13, 21)
    assert verdict(preactresnet18, forecast(preactresnet18, card, TF32)) == "T4 has no TF32: as fp32"
    assert verdict(preactresnet18, forecast(preactresnet18, card, BF16)) == "T4 has no bfloat16 in cuDNN"


def test_deterministic_mode_never_takes_a_nondeterministic_engine(preactresnet18: Step) -> None:
    result = forecast(preactresnet18, find_card("RTX A6000"), FP32)
    for row in result.rows:
        assert row.answer.deterministic is not None
        assert not row.answer.deterministic.nondeterministic
        if not row.answer.nondeterministic:  # the same list with fewer engines
            assert row.answer.deterministic == row.answer.free
        if row.answer.nondeterministic:
            assert row.answer.autotuned  # the first choice is one of the first ten


def test_no_device_is_touched(preactresnet18: Step) -> None:
    forecast(preactresnet18, find_card("H200"), BF16)
    assert not torch.cuda.is_initialized()
    assert preactresnet18.device == "meta"


def test_calls_and_layers_of_a_step(preactresnet18: Step) -> None:
    assert len(preactresnet18.convolutions) == 3 * 20 - 1  # images need no gradient
    by_shape = dict(distinct(preactresnet18.convolutions))
    stem = [call for call in by_shape if call.x == (128, 3, 32, 32)]
    assert [call.operation for call in stem] == [FORWARD, WEIGHT_GRADIENT]
    assert ("blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2") in by_shape.values()


@pytest.mark.parametrize(
    ("shape", "last", "expected"),
    [((2, 3, 4, 5), False, (60, 20, 5, 1)), ((2, 3, 4, 5), True, (60, 1, 15, 3)),
     ((2, 3, 4, 5, 6), True, (360, 1, 90, 18, 3))],
)  # fmt: skip
def test_strides(shape: tuple[int, ...], last: bool, expected: tuple[int, ...]) -> None:
    memory = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    made = torch.empty(shape).to(memory_format=memory) if last else torch.empty(shape)
    assert strides(shape, channels_last=last) == expected == made.stride()


def test_depthwise_is_pytorchs_own_in_nchw_and_cudnns_in_nhwc() -> None:
    step = step_of_layer(nn.Conv2d(12, 24, 3, groups=12), 2, 12, 8, 8)
    assert {answer.kernel for answer in answers(step, TF32).values()} == {PYTORCH}
    assert {answer.kernel for answer in answers(step, BF16).values()} == {CUDNN}
    grouped = step_of_layer(nn.Conv2d(12, 24, 3, groups=3), 2, 12, 8, 8)
    assert {answer.kernel for answer in answers(grouped, TF32).values()} == {CUDNN}


@pytest.mark.parametrize("axes", [2, 3])
def test_a_transposed_convolution_is_another_ones_gradient(axes: int) -> None:
    kinds = {2: (nn.ConvTranspose2d, nn.Conv2d), 3: (nn.ConvTranspose3d, nn.Conv3d)}
    transposed = step_of_layer(kinds[axes][0](4, 8, 3, 2), 2, 4, *[8] * axes)
    plain = step_of_layer(kinds[axes][1](8, 4, 3, 2), 2, 8, *[17] * axes)
    mine, its = answers(transposed, FP32), answers(plain, FP32)
    assert mine == {FORWARD: its[INPUT_GRADIENT], INPUT_GRADIENT: its[FORWARD], WEIGHT_GRADIENT: its[WEIGHT_GRADIENT]}
    assert mine[FORWARD].nondeterministic == (axes == 3)


def test_one_axis_becomes_two_and_has_no_channels_last() -> None:
    step = step_of_layer(nn.Conv1d(4, 8, 3, padding=1), 2, 4, 18)
    problem = problem_of(step.convolutions[0])
    assert (problem.x, problem.w, problem.padding) == ((2, 4, 1, 18), (8, 4, 1, 3), (0, 1))
    assert answers(step, FP32) == answers(step, Setting("fp32", "NHWC"))


def test_output_padding_that_cudnn_does_not_do_is_pytorchs_own() -> None:
    step = step_of_layer(nn.ConvTranspose2d(4, 8, 3, 1, dilation=3, output_padding=2), 2, 4, 8, 8)
    assert {answer.kernel for answer in answers(step, FP32).values()} == {PYTORCH}


def test_a_convolution_that_cudnn_refuses_is_named_with_its_layer() -> None:
    wrong = Convolution(FORWARD, "stem.conv", (2, 3, 8, 8), (4, 3, 3, 3), (2, 4, 99, 99), (1, 1), (0, 0), (1, 1),
                        False, (0, 0), 1)  # fmt: skip
    step = Step([wrong], [], "meta")
    result = forecast(step, find_card("L4"), FP32)
    assert result.rows[0].layers == ("stem.conv",)
    assert result.rows[0].answer.kernel == REFUSED
    assert "CUDNN_STATUS_BAD_PARAM" in result.rows[0].answer.reason
    assert verdict(step, result) == f"{FREE_OF_ATOMICS}; 1 convolution that cuDNN refuses"


def test_what_does_not_fit_into_the_cards_memory_is_not_taken(preactresnet18: Step) -> None:
    roomy, card = forecast(preactresnet18, find_card("A100 40GB"), TF32), find_card("A100 40GB")
    small = devices.Card("small", card.description | {"totalGlobalMem": 1 << 20})
    result = forecast(preactresnet18, small, TF32)
    assert result.workspace_bytes("free") <= 1 << 20 < roomy.workspace_bytes("free")


def test_a_step_that_needs_values_is_run_on_the_cpu() -> None:
    class Peeks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) * (1 if x.sum().item() > 0 else 2)

    model, labels = Peeks(), torch.zeros(2, 6, 6, dtype=torch.long)
    step = step_of(model, functional.cross_entropy, (torch.ones(2, 3, 8, 8), labels))
    assert step.device == "cpu"
    assert [call.operation for call in step.convolutions] == [FORWARD, WEIGHT_GRADIENT]
    assert [call.operation for call in step.others] == ["nll_loss2d_forward"]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_attention_and_other_operations_of_a_users_function(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: Cli,  # noqa: F811
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    with flags_kept():
        torch.use_deterministic_algorithms(True)  # as a user's file may say: the forecast is of free mode
        Path("out.json").write_text('{"forecasts": [], "cudnn": ""}')  # earlier answers
        Path("card.json").write_text('{"deviceName": "", "deviceVer": 0}')
        files = ("--json", "out.json", "--save", "card.json")
        code, output, _ = cli("forecast", "own.py:make", "--gpu", "A6000", *files)
    assert code == 0
    assert json.loads(Path("card.json").read_text()) == find_card("A6000").description
    facts = json.loads(Path("out.json").read_text())
    assert [(o["operation"], o["module"]) for o in facts["others"]] == [
        (ATTENTION, ""), ("upsample_bilinear2d_backward", ""),
    ]  # fmt: skip
    by_setting = {(f["precision"], f["layout"]): f for f in facts["forecasts"]}
    assert by_setting["bf16", "NHWC"]["verdict"] == "2 operations by atomics"
    assert facts["cudnn"] == backend.version_name()
    assert "SDPBackend.MATH" in output
    code, _, errors = cli("forecast", "own.py:half")
    assert code == 2
    assert "(model, loss, optimizer, (inputs, targets))" in errors


def test_a_model_without_convolutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    text = OWN.replace("model = Net()", "model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))")
    Path("own.py").write_text(text)
    code, output, _ = cli("forecast", "own.py:make", "--gpu", "H200")
    assert code == 0
    assert "no convolution in this step" in output
    assert FREE_OF_ATOMICS in output


def test_a_task_and_a_model_by_name(study: Layout, cli: Cli) -> None:  # noqa: F811
    code, output, _ = cli("forecast", "shapes", "--gpu", "RTX 3090", "--gpu", "T4")
    assert code == 0
    assert "RTX 3090" in output
    assert "T4 has no bfloat16" in output
    code, output, _ = cli("forecast", "preactresnet18", "--gpu", "RTX 3090", "--batch-size", "4", "--image-size", "64")
    assert code == 0
    assert "preactresnet18, batch 4, 64 x 64; cuDNN" in output
    assert "59 convolutions of a step" in output
    assert "()" not in output  # of an engine without notes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet81"], "did you mean 'resnet18'?"),
        (["resnet18", "--gpu", "RTX 4900"], "nearest: RTX 4090"),
        (["resnet18", "--gpu", "A100"], "nearest: A100 40GB, A100 80GB; known: T4,"),
        (["resnet18", "--gpu", "here"], "cuDNN finds no CUDA device here"),
        (["resnet18", "--gpu", "absent.json"], "absent.json"),
        (["resnet18", "--save", "x.json"], "one card"),
        (["own.py:make", "--batch-size", "3"], "makes its own batch"),
    ],
)
def test_mistakes_end_in_one_sentence(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: Cli,  # noqa: F811
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = cli("forecast", *arguments)
    assert code == 2
    assert words in errors


def test_every_value_of_a_card_has_its_source() -> None:
    assert known_cards() == ["T4", "A100 40GB", "A100 80GB", "RTX A6000", "RTX 3090", "RTX 4090", "L4", "L40S",
                             "H100 PCIe", "H100 SXM", "H200", "B200"]  # fmt: skip
    keys = set(sourced("T4"))
    for name in known_cards():
        assert set(sourced(name)) == keys
        assert all(len(source) > 20 for _, source in sourced(name).values())
        devices.check_description(find_card(name).description, name)
        backend.described_device(find_card(name).description)
    assert (find_card("nvidia rtx a6000").name, find_card("3090").name) == ("RTX A6000", "RTX 3090")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"multiProcessorCount": 0}, "multiProcessorCount of the card is 0"),
        ({"totalGlobalMem": -1}, "whole number from 1"),
        ({"maxGridSize": [1, 2]}, "3 whole numbers"),
        ({"deviceVer": 8.6}, "deviceVer of the card is 8.6"),
        ({"deviceVer": 86}, "compute capability times 100"),
        ({"deviceVer": 700}, "has kernels for 7.5, 8.0, 8.6, 9.0, 10.0, 12.0"),
        ({"isTccDriver": 2}, "isTccDriver"),
        ({"deviceName": ""}, "a name"),
        ({"l2CacheSize": None}, "l2CacheSize of the card is None"),
    ],
)
def test_impossible_descriptions(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps(find_card("L4").description | change))
    with pytest.raises(InputError, match=r"card\.json") as caught:
        find_card(str(path))
    assert words in str(caught.value)


def test_a_description_that_lacks_a_value_and_one_that_cudnn_refuses(tmp_path: Path, preactresnet18: Step) -> None:
    path, whole = tmp_path / "card.json", find_card("L4").description
    path.write_text(json.dumps({key: value for key, value in whole.items() if key != "warpSize"}))
    with pytest.raises(InputError, match="lacks warpSize"):
        find_card(str(path))
    card = devices.Card("odd", whole | {"deviceVer": 123})
    with pytest.raises(InputError, match="refuses the description of odd"):
        forecast(preactresnet18, card, FP32)


class FakeDevice:
    """Stands for cuDNN on a machine with a card: it describes device 0."""

    text = json.dumps(find_card("L40S").description).encode()

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: 0

    def cudnnBackendSetAttribute(self, descriptor: Any, attribute: int, kind: int, count: Any, array: Any) -> int:  # noqa: N802
        assert (attribute, kind, count.value) == (2700, backend._INT32, 1)
        self.asked += list(array)
        return 0

    def cudnnBackendGetAttribute(  # noqa: N802
        self, descriptor: Any, attribute: int, kind: int, most: Any, count: Any, array: Any
    ) -> int:
        assert (attribute, kind) == (2702, backend._CHAR)
        count._obj.value = len(self.text)
        if array is not None:
            assert most.value >= len(self.text)
            array.value = self.text
        return 0


def test_the_card_that_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cli: Cli) -> None:  # noqa: F811
    fake = FakeDevice()
    with monkeypatch.context() as patch:
        patch.setattr(backend, "library", lambda: fake)
        assert find_card("here").description == find_card("L40S").description
        assert fake.asked == [0]
    monkeypatch.setattr(devices, "description_of_device", lambda index: find_card("L40S").description)
    monkeypatch.chdir(tmp_path)
    code, output, _ = cli("forecast", "preactresnet18", "--gpu", "here", "--save", "here.json", "--batch-size", "2")
    assert code == 0
    assert "NVIDIA L40S" in output
    assert find_card("here.json").description == find_card("L40S").description


@pytest.mark.parametrize(("version", "words"), [(None, "has none"), (90701, "this is 9.7.1")])
def test_cudnn_that_is_absent_or_too_old(
    version: int | None,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    cli: Cli,  # noqa: F811
) -> None:
    def load(*_: Any) -> Any:
        if version is None:
            raise OSError("no such library")
        return SimpleNamespace(cudnnGetVersion=lambda: version)

    monkeypatch.setattr(ctypes, "CDLL", load)
    backend.library.cache_clear()
    try:
        code, _, errors = cli("forecast", "resnet18")
    finally:
        backend.library.cache_clear()
    assert code == 2
    assert "a forecast needs cuDNN" in errors
    assert words in errors


def test_advice_names_deterministic_mode_where_it_would_fail(preactresnet18: Step) -> None:
    step = step_of_layer(nn.Conv2d(3, 4, 3), 2, 3, 8, 8)
    result = forecast(step, find_card("L4"), FP32)
    lacking = tuple(type(row)(row.convolution, row.layers, Answer(CUDNN, row.answer.free, None)) for row in result.rows)
    lines = advice(step, [Forecast("L4", FP32, lacking)])
    assert "deterministic mode would fail: some convolutions have no deterministic engine" in lines
