"""Two published numbers: against numerical integration, and bad numbers."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from twinrun.stats.published import agreement_range, published, sd_that_undoes, wrong_order
from twinrun.study.errors import InputError


@pytest.mark.parametrize(("a", "b"), [(10.0, 20.0), (0.0, 3.0), (7.5, 7.5)])
def test_the_wrong_order_is_the_integral_of_the_dirichlet_posterior(a: float, b: float) -> None:
    density = stats.dirichlet([a + 1, b + 1, 50.0])

    def below(x: float) -> float:  # B alone below A alone
        return max(min(x, 1 - x - 1e-9), 1e-9)

    value, _ = integrate.dblquad(lambda y, x: density.pdf([x, y, 1 - x - y]), 1e-9, 1 - 1e-9, 1e-9, below)
    assert wrong_order(a, b) == pytest.approx(value, abs=2e-3)


def test_what_is_drawn_agrees_with_the_closed_form() -> None:
    for both in (None, 0.88):
        exact = published(0.90, 0.91, 1000, both_right=both)
        drawn = published(0.90, 0.91, 1000, both_right=both, sd=0.0)
        assert drawn.wrong == pytest.approx(exact.wrong_images, abs=0.005)
        assert drawn.wrong_training == 0
        assert exact.low < 0.01 < exact.high


def test_training_noise_adds_to_that_of_the_test_set() -> None:
    item = published(0.90, 0.92, 10**7, sd=0.01)
    assert item.wrong_images < 1e-9
    assert item.wrong_training == pytest.approx(stats.norm.cdf(-0.02 / (0.01 * math.sqrt(2))))
    assert item.wrong == pytest.approx(item.wrong_training, abs=0.005)
    assert item.high - item.low == pytest.approx(2 * 1.96 * 0.01 * math.sqrt(2), rel=0.02)
    assert published(0.90, 0.92, 10**7, sd=0.005).wrong == pytest.approx(stats.norm.cdf(-2 * math.sqrt(2)), abs=0.002)


def test_models_that_agree_more_are_told_apart_more_easily() -> None:
    least, most = agreement_range(0.9, 0.91)
    assert (least, most) == pytest.approx((0.81, 0.9))
    chances = [published(0.9, 0.91, 1000, both_right=share).wrong_images for share in (0.81, 0.85, 0.89, 0.9)]
    assert chances == sorted(chances, reverse=True)


def test_the_sd_that_undoes_a_verdict() -> None:
    sd = sd_that_undoes(0.90, 0.95, 2000)
    assert published(0.90, 0.95, 2000, sd=0.95 * sd).low > 0
    assert published(0.90, 0.95, 2000, sd=1.05 * sd).low < 0
    assert sd_that_undoes(0.912, 0.921, 2000) is None


def test_the_interval_of_the_test_set_covers() -> None:
    rng = np.random.default_rng(0)
    cells = [0.82, 0.08, 0.06, 0.04]  # both, A alone, B alone, none
    held = []
    for both, alone_a, alone_b, _ in rng.multinomial(500, cells, size=150):
        item = published((both + alone_a) / 500, (both + alone_b) / 500, 500, both_right=both / 500)
        held.append(item.low <= -0.02 <= item.high)
    assert 0.9 <= np.mean(held) <= 0.99


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"a": 91.2, "b": 0.9, "images": 10}, "91.2 is no share"),
        ({"a": 0.9, "b": math.nan, "images": 10}, "nan is no share"),
        ({"a": 0.9, "b": 0.9, "images": 1}, "1 test images"),
        ({"a": 0.9, "b": 0.9, "images": 10, "sd": -1.0}, "a training SD of -1"),
        ({"a": 0.912, "b": 0.921, "images": 10, "sd": 0.6}, "0.6 points are 0.006"),
        ({"a": 0.9, "b": 0.8, "images": 10, "both_right": 0.85}, "lies between 0.7 and 0.8"),
    ],
)
def test_numbers_that_no_test_set_can_have_are_named(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(InputError) as error:
        published(**arguments)
    assert words in str(error.value)


def test_an_sd_that_the_true_means_may_have_is_taken() -> None:
    assert published(0.999, 1.0, 1000, sd=0.04).sd == 0.04
    assert published(1.0, 1.0, 1000, sd=0.04).wrong_training == 0.5
