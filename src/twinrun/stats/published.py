"""Two published numbers: what the finite test set and the noise of training leave of their order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from twinrun.study.errors import InputError

DRAWS = 50_000  # of the posterior: an end of the interval is known to a hundredth of its SD


@dataclass(frozen=True)
class Published:
    """Two shares of one test set and the probabilities that B is truly the worse one, all of them in [0, 1].

    `both_right` is the share of images that both get right. `sd` is the total SD of one published number over
    trainings; None: not given, so `wrong_training` and `wrong` are None, too. `low` and `high` hold the true B - A with
    95 %, from everything that was given.
    """

    a: float
    b: float
    images: int
    both_right: float
    sd: float | None
    wrong_images: float
    wrong_training: float | None
    wrong: float | None
    low: float
    high: float

    @property
    def difference(self) -> float:
        """B - A."""
        return self.b - self.a


def agreement_range(a: float, b: float) -> tuple[float, float]:
    """The least and the largest share of images that both can get right.

    >>> agreement_range(0.75, 0.5)
    (0.25, 0.5)
    """
    return max(0.0, a + b - 1), min(a, b)


def wrong_order(right_a_alone: float, right_b_alone: float) -> float:
    """Probability that B is truly worse, from how many images A alone and B alone get right.

    The shares of the four cells of agreement have a Dirichlet posterior with a uniform prior, of which B alone over
    either alone is Beta(b + 1, a + 1). Source: Christodoulou et al. (2025), arXiv 2505.04720.

    >>> round(wrong_order(10, 20), 4)
    0.0354
    """
    return float(special.betainc(right_b_alone + 1, right_a_alone + 1, 0.5))


def published(
    a: float,
    b: float,
    images: int,
    *,
    both_right: float | None = None,
    sd: float | None = None,
) -> Published:
    """Compare two accuracies measured once on the same test set.

    Without `both_right` the models err independently, which makes images weigh most: twins agree more. `sd` is the
    total SD over trainings of either model in the same unit as the accuracies, each that of one training.
    Raises InputError for numbers that no test set can have.

    >>> few = published(0.912, 0.921, 2000)
    >>> print(f"{few.wrong_images:.3f} {few.low:.3f} {few.high:.3f}")
    0.152 -0.008 0.026
    """
    for value in (a, b):
        if not 0 <= value <= 1:
            raise InputError(f"{value:g} is no share", "an accuracy lies between 0 and 1, such as 0.912")
    if images < 2:
        raise InputError(f"{images} test images", "give the number of images of the test set, two or more")
    if sd is not None and not (math.isfinite(sd) and sd >= 0):
        raise InputError(f"a training SD of {sd:g}", "give the SD over runs in the unit of the accuracies, 0 or more")
    if sd is not None and sd > 0.5:  # that of half the runs at 0 and half at 1; the mean of runs is not known
        raise InputError(
            f"a training SD of {sd:g} is more than shares can have",
            f"give it in the unit of the accuracies: {sd:g} points are {sd / 100:g}",
        )
    least, most = agreement_range(a, b)
    shared = a * b if both_right is None else both_right
    if not least - 1e-9 <= shared <= most + 1e-9:
        raise InputError(
            f"both right on {shared:g} of the images", f"with {a:g} and {b:g} it lies between {least:.4g} and {most:g}"
        )
    alone_a, alone_b = max(a - shared, 0.0) * images, max(b - shared, 0.0) * images
    rng = np.random.default_rng(0)
    cells = rng.dirichlet([alone_a + 1, alone_b + 1, images - alone_a - alone_b + 2], DRAWS)
    differences = cells[:, 1] - cells[:, 0]
    training = noisy = None
    if sd is not None:
        error = sd * math.sqrt(2)
        training = float(special.ndtr(-(b - a) / error)) if error else 0.5 if a == b else float(b < a)
        # The chance given a draw of the test set, averaged: less noise than drawing the trainings, too.
        noisy = float(special.ndtr(-differences / error).mean()) if error else float((differences < 0).mean())
        differences = differences + error * rng.standard_normal(DRAWS)
    low, high = (float(end) for end in np.quantile(differences, (0.025, 0.975)))
    return Published(a, b, images, shared, sd, wrong_order(alone_a, alone_b), training, noisy, low, high)


def sd_that_undoes(a: float, b: float, images: int, both_right: float | None = None) -> float | None:
    """The training SD of one run above which the better number is no longer better with 97.5 %; None: it is not now.

    The posterior of the test set is taken for normal, as are trainings.

    >>> round(sd_that_undoes(0.90, 0.95, 2000), 4)
    0.0171
    """
    shared = a * b if both_right is None else both_right
    alone = (a - shared + b - shared) - (b - a) ** 2
    room = ((b - a) / float(special.ndtri(0.975))) ** 2 - alone / images
    return math.sqrt(room / 2) if room > 0 else None
