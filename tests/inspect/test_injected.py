"""What runs inside a foreign program: it needs torch alone, and its digests miss no change."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrun.inspect.following import INJECTED
from twinrun.inspect.injected import twinrun_digests
from twinrun.inspect.injected.twinrun_digests import digest, digests, mix


def test_the_standard_library_and_torch_are_enough() -> None:
    files = [path for path in INJECTED.glob("*.py") if path.name != "__init__.py"]
    assert len(files) == 10
    own = {path.stem for path in files}
    for path in files:
        tree = ast.parse(path.read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "torch", *own}, path


@given(
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.bool, torch.int16]),
    st.integers(1, 70_000),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60)
def test_one_changed_byte_changes_the_digest(dtype: torch.dtype, count: int, random: object) -> None:
    tensor = torch.zeros(count, dtype=dtype)
    place = random.randrange(count * tensor.element_size())  # type: ignore[attr-defined]
    other = tensor.clone()
    other.view(torch.uint8)[place] = 1 if dtype == torch.bool else random.randrange(1, 256)  # type: ignore[attr-defined]
    assert digest(tensor) == digest(tensor.clone())
    assert digest(tensor) != digest(other)


@given(st.integers(3, 70_000), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_two_elements_swapped_or_turned_change_it(count: int, random: object) -> None:
    tensor = torch.arange(1, count + 1, dtype=torch.float32)
    first, second = random.sample(range(count), 2)  # type: ignore[attr-defined]
    swapped, turned = tensor.clone(), tensor.clone()
    swapped[[first, second]] = tensor[[second, first]]
    turned[[first, second]] *= -1
    assert len({digest(tensor), digest(swapped), digest(turned), digest(-tensor)}) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [4, 8, 64, 40_000])
def test_signs_that_are_all_turned_do_not_cancel(count: int, dtype: torch.dtype) -> None:
    tensor = torch.arange(1, count + 1, dtype=dtype)
    part = tensor.clone()
    part[: count // 2] *= -1
    assert len({digest(tensor), digest(-tensor), digest(part), digest(-part)}) == 4


@pytest.mark.parametrize("size", [(4, 3, 5, 7), (0, 3), (), (33, 40_000)])
def test_it_is_of_the_values_and_not_of_how_they_lie(size: tuple[int, ...]) -> None:
    tensor = torch.randn(size)
    apart = torch.empty(tensor.numel() + 3)[3:].view(size).copy_(tensor)  # from an address that is no whole word
    assert digest(apart) == digest(tensor)
    if len(size) == 4:
        assert digest(tensor.to(memory_format=torch.channels_last)) == digest(tensor)
        assert digest(tensor.flatten()) != digest(tensor)  # but the shape counts
    assert digest(tensor.to(torch.float64)) != digest(tensor)


def test_several_tensors_have_one_digest_that_knows_their_order() -> None:
    tensors = [torch.randn(3), torch.randn(50_000), torch.randn(3), torch.eye(4).to_sparse()]
    there, back = digests([mix(tensors), mix(tensors[::-1])])
    assert there != back
    assert digests([mix(list(tensors))]) == [there]
    assert digests([mix([])]) == digests([mix([])])


def test_nothing_is_drawn_and_inference_mode_is_no_hindrance() -> None:
    twinrun_digests._tables.clear()
    before = torch.get_rng_state()
    with torch.inference_mode():
        made = torch.ones(5)
        first = digest(made)
    assert torch.equal(torch.get_rng_state(), before)
    assert digest(torch.ones(5)) == digest(made) == first


def test_a_planted_hole_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without factors that depend on the place, a swap is missed: the tests above can fail."""
    factors = torch.ones(1 << 15, dtype=torch.int64)
    monkeypatch.setattr(twinrun_digests, "_tables", {torch.device("cpu"): (factors, torch.empty_like(factors))})
    assert digest(torch.tensor([1.0, 0, 2.0, 0])) == digest(torch.tensor([2.0, 0, 1.0, 0]))


def test_the_folder_is_where_the_tracer_is() -> None:
    assert (Path(INJECTED) / "sitecustomize.py").is_file()


def test_a_digest_for_which_there_is_no_memory_is_not_taken_for_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(INJECTED)
    looking = importlib.import_module("twinrun_looking")

    def no_memory(tensor: torch.Tensor) -> str:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(looking.twinrun_digests, "digest", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        looking.Lockstep.digest(None, torch.zeros(1))


def test_memory_that_a_cpu_has_not_is_no_tensor_without_bytes() -> None:
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):  # no OutOfMemoryError, which is a device's
        twinrun_digests.if_it_has_bytes(lambda: torch.empty(1 << 50, dtype=torch.uint8))
    without = torch.empty(4, device="meta")
    assert twinrun_digests.if_it_has_bytes(lambda: twinrun_digests.digest(without)) is None
