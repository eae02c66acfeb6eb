"""Batches from packed arrays: loaded once, cropped and flipped in bytes, normalized batch by batch on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch.nn import functional

from twinrun.data.packed import Packed
from twinrun.study.schema import Recipe
from twinrun.training.randomness import Noise, Streams

EVALUATION_BATCH = 512  # images of up to EVALUATION_SIDE pixels a side; of larger ones as many pixels
EVALUATION_SIDE = 256
# A small network on a GPU is held up by launches: what can be is launched for several batches at once. On a CPU it
# would only leave the cache.
AT_ONCE, AT_ONCE_BYTES = 16, 64 << 20


@dataclass(frozen=True)
class Batch:
    """Images (b, 3, h, w) float32, labels (b,) int64, and the order that noise put the examples into, if any."""

    images: torch.Tensor
    labels: torch.Tensor
    order: NDArray[np.int64] | None


@dataclass(frozen=True)
class Draw:
    """What was drawn for a batch of b examples, before any image is touched.

    `table` (5, b) int64 on the device: index into the training set, row and column of the crop, horizontal and vertical
    flip. `images` are the bytes of the examples where they are not resident.
    """

    table: torch.Tensor
    order: NDArray[np.int64] | None
    images: torch.Tensor | None


class Batches:
    """The training and test batches of one task on one device, cropped and flipped `at_once` so many.

    The images are loaded once, to the device where they fit into half of its free memory; else they stay in the memory
    map, and each batch is read while the one before is trained on (`resident` False).
    """

    def __init__(
        self,
        packed: Packed,
        recipe: Recipe,
        streams: Streams,
        noise: Noise,
        device: torch.device,
        *,
        resident: bool | None = None,
        channels_last: bool = False,
        at_once: int | None = None,
    ) -> None:
        self.recipe, self.streams, self.noise, self.device = recipe, streams, noise, device
        self.channels_last = channels_last
        self.size, self.padding = packed.image_size, recipe.augment.crop_padding
        self.train_count = packed.n_train
        self.scale, self.shift = (part.to(device) for part in scale_and_shift(packed.channel_mean, packed.channel_std))
        labels = torch.from_numpy(np.array(packed.labels))
        self.train_labels, self.test_labels = labels[: packed.n_train].to(device), labels[packed.n_train :].to(device)
        self.images = packed.images
        # While the train images are padded, they are there twice.
        padded = (1 + 2 * self.padding / self.size) ** 2 if self.padding else 0
        self.resident = fits(round((1 + padded) * packed.images.nbytes), device) if resident is None else resident
        if self.resident:
            self.test_images = self.upload(packed.n_train, len(labels))
            # Every crop of every image as a view: indexing it copies just the crops that are wanted.
            self.crops = self.windows(self.upload(0, packed.n_train))
        several = min(AT_ONCE, AT_ONCE_BYTES // (recipe.batch_size * packed.channels * self.size**2))
        self.at_once = at_once or (max(1, several) if self.resident and device.type == "cuda" else 1)

    def upload(self, start: int, stop: int) -> torch.Tensor:
        """The images from `start` to `stop` on the device, in bytes."""
        return torch.from_numpy(np.array(self.images[start:stop])).to(self.device)

    def windows(self, images: torch.Tensor) -> torch.Tensor:
        """All crops (n, channels, rows, columns, size, size) of padded images, as a view of them."""
        # Padding by nothing would copy them all.
        padded = functional.pad(images, (self.padding,) * 4) if self.padding else images
        return padded.unfold(2, self.size, 1).unfold(3, self.size, 1)

    def read(self, index: NDArray[np.int64]) -> torch.Tensor:
        """Those training images from the memory map, on their way to the device."""
        images = torch.from_numpy(self.images[index])
        return images.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else images

    def parts(self, order: NDArray[np.int64], bounds: list[tuple[int, int]]) -> Iterator[torch.Tensor | None]:
        """The images of each batch where they are not resident, one batch read ahead; None where they are."""
        if self.resident:
            yield from [None] * len(bounds)
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = [reader.submit(self.read, order[slice(*bound)]) for bound in bounds[:1]]
            for following in [*bounds[1:], None]:
                if following:
                    ahead.append(reader.submit(self.read, order[slice(*following)]))
                yield ahead.pop(0).result()

    def train(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        draws = self.draws(epoch)
        while several := list(islice(draws, self.at_once)):
            yield from self.make_several(several)

    def draws(self, epoch: int) -> Iterator[Draw]:
        """What an epoch's batches are made of; drawn before the first, so that nothing waits for the CPU after."""
        order = self.streams.order(epoch, self.train_count)
        bounds = batch_bounds(self.train_count, self.recipe.batch_size)
        orders = self.noise.orders(epoch, [stop - start for start, stop in bounds])
        for (start, stop), within in zip(bounds, orders, strict=True):
            if within is not None:
                order[start:stop] = order[start:stop][within]
        drawn = self.streams.augmentation(epoch, self.train_count)
        choices = self.padding * 2 + 1
        columns = {
            "index": order,
            # Disjoint bits of each example's word.
            "row": (drawn & np.uint64(0xFFFF)) % np.uint64(choices),
            "column": (drawn >> np.uint64(16) & np.uint64(0xFFFF)) % np.uint64(choices),
            "horizontal": drawn >> np.uint64(32) & np.uint64(1),
            "vertical": drawn >> np.uint64(33) & np.uint64(1),
        }
        # One transfer for the whole epoch; the drawn columns are put into the order of the batches.
        table = np.stack([v if k == "index" else v[order].astype(np.int64) for k, v in columns.items()])
        on_device = torch.from_numpy(table).to(self.device)
        for (start, stop), within, part in zip(bounds, orders, self.parts(order, bounds), strict=True):
            yield Draw(on_device[:, start:stop], within, part)

    def make(self, draw: Draw) -> Batch:
        """The drawn examples, cropped, flipped and normalized."""
        return next(self.make_several([draw]))

    def make_several(self, draws: Sequence[Draw]) -> Iterator[Batch]:
        """The batches of `draws`, cropped and flipped at once where the images are resident; else it is one draw."""
        table = draws[0].table if len(draws) == 1 else torch.cat([draw.table for draw in draws], dim=1)
        index, row, column, horizontal, vertical = table
        read = draws[0].images
        if read is None:
            images = self.crops[index, :, row, column]
        else:
            images = self.windows(read)[torch.arange(len(index), device=self.device), :, row, column]
        if self.recipe.augment.horizontal_flip:
            images = choose(images, images.flip(3), horizontal)
        if self.recipe.augment.vertical_flip:
            images = choose(images, images.flip(2), vertical)
        sizes = [draw.table.shape[1] for draw in draws]
        for draw, part, labels in zip(draws, images.split(sizes), self.train_labels[index].split(sizes), strict=True):
            yield Batch(self.normalize(part), labels, draw.order)

    def test(self) -> Iterator[Batch]:
        """The test set in its prepared order."""
        count = max(1, min(EVALUATION_BATCH, EVALUATION_BATCH * EVALUATION_SIDE**2 // self.size**2))
        for start in range(0, len(self.test_labels), count):
            stop = min(start + count, len(self.test_labels))
            if self.resident:
                images = self.test_images[start:stop]
            else:
                images = self.upload(self.train_count + start, self.train_count + stop)
            yield Batch(self.normalize(images), self.test_labels[start:stop], None)

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Bytes to zero mean and unit variance per channel; gray becomes three equal channels."""
        images = normalized(images, self.scale, self.shift)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """What `normalized` takes, (1, channels, 1, 1) each, of the channels' statistics on the 0..1 scale."""
    means, stds = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (mean, std))
    return (1 / (255 * stds)).float(), (means / stds).float()


def normalized(images: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Bytes (n, channels, h, w) as float32 (n, 3, h, w) of zero mean and unit variance; gray: three equal channels."""
    return images.float().mul_(scale).sub_(shift).expand(-1, 3, -1, -1)


def fits(size: int, device: torch.device) -> bool:
    """Whether `size` bytes of images leave half of the memory for the training itself."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return size <= free / 2


def choose(plain: torch.Tensor, other: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """For each example `plain` where `which` is 0 and `other` where it is 1, all of bytes.

    Byte arithmetic wraps around, so this is exact; and nine times as fast as torch.where on a CPU.
    """
    return plain + (other - plain) * which.to(torch.uint8).view(-1, 1, 1, 1)


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """[start, stop) of each batch; a last batch of one joins its neighbour, for batch statistics need two."""
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], count], strict=True))
