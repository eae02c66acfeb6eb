"""Batches: every example once, crops and flips as drawn, noise in the order alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import TINY

from twinrun.data.packed import Packed, load_packed
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import read_params
from twinrun.study.schema import Augment, Recipe
from twinrun.training import batches as batches_module
from twinrun.training.batches import Batches, batch_bounds, fits
from twinrun.training.randomness import Noise, Streams

CPU = torch.device("cpu")
PARAMS = read_params(TINY)
STREAMS = Streams.of(Run("t", "sgd", 3, "det", 1))


def recipe(**augment: object) -> Recipe:
    return Recipe(epochs=1, batch_size=32, heads_every=1, metric="accuracy", augment=Augment(**augment))


@pytest.fixture
def packed(study: Layout) -> Packed:
    return load_packed(study.prepared("shapes"), PARAMS.data_params_digest("shapes"))


@given(st.integers(2, 500), st.integers(2, 64))
def test_bounds_cover_everything_and_leave_no_batch_of_one(count: int, size: int) -> None:
    bounds = batch_bounds(count, size)
    assert [i for start, stop in bounds for i in range(start, stop)] == list(range(count))
    assert all(2 <= stop - start <= size + 1 for start, stop in bounds)


def test_images_without_padding_are_not_copied(packed: Packed) -> None:
    batches, images = Batches(packed, recipe(), STREAMS, Noise("none", None), CPU), torch.ones(2, 3, 8, 8)
    assert batches.windows(images).data_ptr() == images.data_ptr()
    assert batches.windows(images).shape == (2, 3, 1, 1, 8, 8)


def test_an_epoch_is_what_the_streams_say(packed: Packed) -> None:
    """Against a plain loop over examples: pad, crop, flip, normalize."""
    batches = Batches(packed, recipe(crop_padding=2, horizontal_flip=True, vertical_flip=True), STREAMS,
                      Noise("none", None), CPU)  # fmt: skip
    found = list(batches.train(epoch=1))
    order, drawn = STREAMS.order(1, packed.n_train), STREAMS.augmentation(1, packed.n_train)
    position = 0
    for batch in found:
        for image, label in zip(batch.images, batch.labels, strict=True):
            example = order[position]
            word = int(drawn[example])
            row, column = (word & 0xFFFF) % 5, (word >> 16 & 0xFFFF) % 5
            padded = np.pad(packed.images[example], ((0, 0), (2, 2), (2, 2)))
            crop = padded[:, row : row + 8, column : column + 8]
            crop = crop[:, :, ::-1] if word >> 32 & 1 else crop
            crop = crop[:, ::-1] if word >> 33 & 1 else crop
            np.testing.assert_allclose(image.numpy(), (crop / 255 - 0.4) / 0.25, atol=1e-5)
            assert label == packed.labels[example]
            position += 1
    assert position == packed.n_train


def test_epochs_differ_and_repeat(packed: Packed, twins: Callable[..., torch.Tensor]) -> None:
    batches = Batches(packed, recipe(crop_padding=1), STREAMS, Noise("none", None), CPU)
    first = twins(lambda: torch.cat([b.images for b in batches.train(0)]))
    assert not torch.equal(first, torch.cat([b.images for b in batches.train(1)]))


def test_reorder_noise_keeps_each_batch_and_each_examples_crop(packed: Packed) -> None:
    plain = Batches(packed, recipe(crop_padding=1, horizontal_flip=True), STREAMS, Noise("none", None), CPU)
    noisy = Batches(packed, recipe(crop_padding=1, horizontal_flip=True), STREAMS, Noise("reorder", "0" * 32), CPU)
    moved = 0
    for one, two in zip(plain.train(0), noisy.train(0), strict=True):
        assert one.order is None
        assert torch.equal(one.images[two.order], two.images)
        assert torch.equal(one.labels[two.order], two.labels)
        moved += not torch.equal(one.images, two.images)
    assert moved == 3


def test_test_set_is_in_its_prepared_order_and_untouched(packed: Packed) -> None:
    batches = Batches(packed, recipe(crop_padding=2, horizontal_flip=True), STREAMS, Noise("reorder", "0" * 32), CPU)
    images = torch.cat([b.images for b in batches.test()])
    np.testing.assert_allclose(images.numpy(), (packed.images[packed.n_train :] / 255 - 0.4) / 0.25, atol=1e-5)
    assert torch.cat([b.labels for b in batches.test()]).tolist() == packed.labels[packed.n_train :].tolist()


def test_gray_becomes_three_equal_channels(study: Layout) -> None:
    batches = Batches(
        load_packed(study.prepared("cuts"), read_params(TINY).data_params_digest("cuts")),
        recipe(),
        STREAMS,
        Noise("none", None),
        CPU,
    )
    images = next(batches.train(0)).images
    assert images.shape == (32, 3, 16, 16)
    assert torch.equal(images[:, 0], images[:, 2])


@pytest.mark.parametrize("kind", ["none", "reorder"])
def test_images_that_do_not_fit_give_the_same_batches(kind: str, packed: Packed) -> None:
    """Read from the memory map one batch ahead: bit for bit what the resident arrays give."""
    for settings in ({"crop_padding": 2, "horizontal_flip": True, "vertical_flip": True}, {}):
        resident, mapped = (
            Batches(packed, recipe(**settings), STREAMS, Noise(kind, "0" * 32), CPU, resident=resident)
            for resident in (True, False)
        )
        for one, two in [*zip(resident.train(3), mapped.train(3), strict=True),
                         *zip(resident.test(), mapped.test(), strict=True)]:  # fmt: skip
            assert torch.equal(one.images, two.images)
            assert torch.equal(one.labels, two.labels)


@pytest.mark.parametrize("kind", ["none", "reorder"])
@pytest.mark.parametrize("at_once", [2, 16])
def test_batches_that_are_cropped_together_have_the_same_bits(at_once: int, kind: str, packed: Packed) -> None:
    """Batches of 32, 32 and 32: pairs leave one over, sixteen are more than there are."""
    settings = recipe(crop_padding=2, horizontal_flip=True, vertical_flip=True)
    single, several = (
        Batches(packed, settings, STREAMS, Noise(kind, "0" * 32), CPU, at_once=count) for count in (1, at_once)
    )
    pairs = list(zip(single.train(3), several.train(3), strict=True))
    assert len(pairs) == 3
    for one, other in pairs:
        assert torch.equal(one.images, other.images)
        assert one.images.stride() == other.images.stride()
        assert torch.equal(one.labels, other.labels)
        assert (one.order is None) == (other.order is None) == (kind == "none")
        assert one.order is None or np.array_equal(one.order, other.order)


def test_on_a_cpu_batches_are_cropped_one_by_one(packed: Packed) -> None:
    assert Batches(packed, recipe(), STREAMS, Noise("none", None), CPU).at_once == 1


def test_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert fits(500, CPU)
    assert not fits(501, CPU)


@pytest.mark.parametrize(("padding", "times"), [(0, 1), (2, 1 + (12 / 8) ** 2)])
def test_padded_images_are_there_twice(
    padding: int, times: float, packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(batches_module, "fits", lambda size, device: not asked.append(size))
    Batches(packed, recipe(crop_padding=padding), STREAMS, Noise("none", None), CPU)
    assert asked == [round(times * packed.images.nbytes)]


@pytest.mark.parametrize(
    ("side", "sizes"), [(256, [50, 14]), (8, [50, 14]), (4, [12, 12, 12, 12, 12, 4]), (1, [1] * 64)]
)
def test_large_images_are_evaluated_in_smaller_batches(
    side: int, sizes: list[int], packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "EVALUATION_BATCH", 50)
    monkeypatch.setattr(batches_module, "EVALUATION_SIDE", side)  # the images have 8 pixels a side
    found = list(Batches(packed, recipe(), STREAMS, Noise("none", None), CPU).test())
    assert [len(batch.labels) for batch in found] == sizes
