"""Measures of layers and features: brute force, closed forms, properties, and simulation of the sampling error."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from twinrun.stats.weights import PARTS, debiased_cka, measures, sampling_error
from twinrun.training.recording import SAMPLED, positions

shapes = st.tuples(st.integers(2, 5), st.integers(1, 3), st.integers(1, 70))
several = arrays.arrays(np.float64, shapes, elements=st.floats(0.125, 8))


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


def distance(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.linalg.norm(one - two) / ((np.linalg.norm(one) + np.linalg.norm(two)) / 2))


@settings(max_examples=40)
@given(several, st.sampled_from([0, PARTS]))
def test_measures_are_those_of_all_pairs(values: np.ndarray, parts: int) -> None:
    found = measures(values, values * 0.25 - 1, parts)
    _, layers, count = values.shape
    assert found.distance.shape == (layers, 1 + parts)
    for layer in range(layers):
        pairs = list(itertools.combinations(values[:, layer], 2))
        assert found.distance[layer, 0] == pytest.approx(np.mean([distance(*pair) for pair in pairs]), abs=1e-6)
        assert found.cosine[layer, 0] == pytest.approx(np.mean([cosine(*pair) for pair in pairs]), abs=1e-9)
        ways = itertools.combinations(values[:, layer] * 0.75 + 1, 2)
        assert found.displacement[layer, 0] == pytest.approx(np.mean([cosine(*pair) for pair in ways]), abs=1e-9)
        if parts and count > parts:
            rest = np.delete(values[:, layer], np.arange(3, count, parts), axis=1)
            left = np.mean([distance(*pair) for pair in itertools.combinations(rest, 2)])
            assert found.distance[layer, 4] == pytest.approx(left, abs=1e-6)


@settings(max_examples=40)
@given(several, st.sampled_from([1e-20, 0.5, 3.0, 1e15]))
def test_scale_and_order_of_runs_do_not_matter(values: np.ndarray, factor: float) -> None:
    plain, start = measures(values, values - 1), values - 1
    for other in (measures(values * factor, start * factor), measures(values[::-1], start[::-1])):
        for one, two in zip(plain, other, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)
    # Each run by a scale of its own: the cosine alone does not see it.
    scales = np.arange(1, len(values) + 1)[:, None, None]
    np.testing.assert_allclose(measures(values * scales, None).cosine, plain.cosine, atol=1e-9)


@settings(max_examples=20)
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 50)), elements=st.floats(0.125, 8, width=32))
)
def test_identical_runs_are_at_no_distance(layer: np.ndarray) -> None:
    found = measures(np.stack([layer] * 4), np.stack([layer - 1] * 4), PARTS)
    assert (found.distance[:, 0] == 0).all()
    assert (found.cosine[:, 0] == 1).all()
    assert (found.displacement[:, 0] == 1).all()


def test_one_unit_in_the_last_place_is_a_distance() -> None:
    one = np.random.default_rng(3).normal(size=1000).astype(np.float32)
    two = one.copy()
    two[7] = np.nextafter(two[7], np.float32(9))
    expected = distance(one.astype(float), two.astype(float))
    assert 0 < expected < 1e-8
    assert measures(np.stack([one, two])[:, None], None).distance.item() == pytest.approx(expected, abs=1e-12)


def test_what_has_no_value_is_not_a_number() -> None:
    zero, one = np.zeros((2, 1, 5)), np.ones((2, 1, 5))
    assert np.isnan(measures(zero, None)).all()
    assert np.isnan(measures(one[:1], one[:1])).all()
    found = measures(one, one)
    assert (found.distance.item(), found.cosine.item()) == (0, 1)
    assert np.isnan(found.displacement).all(), "nothing has moved"
    mixed = measures(np.concatenate([zero[:1], one[:1]]), None)
    assert mixed.distance.item() == 2
    assert np.isnan(mixed.cosine).all()
    assert np.isnan(measures(one * np.inf, None).distance).all()


def layer_of(rng: np.random.Generator, count: int) -> np.ndarray:
    """Two runs of one layer: heavy-tailed, its channels of different size, the second with noise of its own."""
    channels = np.repeat(rng.lognormal(0, 0.6, count // 64), 64)
    start = rng.normal(size=count)
    steps = rng.normal(size=(2, count)) * 0.4 + rng.standard_t(6, size=count)
    return channels * (start + steps), channels * start  # type: ignore[return-value]


def test_the_sampling_error_covers_the_whole_layer() -> None:
    """Over many layers: the interval of two standard errors around the sample's value holds that of the tensor."""
    rng, count, inside, ratios = np.random.default_rng(5), 64 * 160, [], []
    for trial in range(400):
        values, start = layer_of(rng, count)
        whole = measures(values[:, None], np.stack([start] * 2)[:, None])
        places = positions(f"trial {trial}", count)
        part = measures(values[:, None, places], np.stack([start[places]] * 2)[:, None], PARTS)
        for exact, found in zip(whole, part, strict=True):
            error = sampling_error(found[0], SAMPLED, count)
            # 2.04: the t quantile of PARTS - 1 degrees of freedom.
            inside.append(abs(found[0, 0] - exact[0, 0]) <= 2.04 * error)
            ratios.append((found[0, 0] - exact[0, 0]) / error)
    inside = np.reshape(inside, (-1, 3)).mean(axis=0)
    # Channels differ in size, and the sample has its share of each: the error is rather over- than understated.
    assert (inside >= 0.93).all(), inside
    assert (np.std(np.reshape(ratios, (-1, 3)), axis=0) > 0.7).all(), "not a useless one either"


def test_no_sampling_error_where_all_is_recorded() -> None:
    assert sampling_error(np.array([1.0]), 10, 10) == 0
    assert math.isnan(sampling_error(np.array([1.0, math.nan, 2.0]), 10, 20))


def hsic(kernel: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimator, written out (Song et al. 2012, eq. 5)."""
    n, ones = len(kernel), np.ones(len(kernel))
    first, second = kernel - np.diag(np.diag(kernel)), other - np.diag(np.diag(other))
    total = np.trace(first @ second) + (ones @ first @ ones) * (ones @ second @ ones) / ((n - 1) * (n - 2))
    return float((total - 2 / (n - 2) * ones @ first @ second @ ones) / (n * (n - 3)))


def direct_cka(one: np.ndarray, two: np.ndarray) -> float:
    # Centred, which changes nothing but the rounding: four images of one feature far from 0 would leave seven digits.
    first, second = (centred @ centred.T for centred in (one - one.mean(axis=0), two - two.mean(axis=0)))
    return hsic(first, second) / math.sqrt(hsic(first, first) * hsic(second, second))


@settings(max_examples=30)
@given(st.integers(4, 30), st.integers(1, 40), st.integers(0, 2**32))
def test_cka_is_the_ratio_of_unbiased_estimators(images: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = rng.normal(size=(2, images, length)) + 3
    assert debiased_cka(np.stack([one, two])).mean == pytest.approx(direct_cka(one, two), abs=1e-8)


def test_cka_does_not_see_rotation_scale_and_shift() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(3, 50, 20))
    features[1:] += features[0]
    rotation = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    plain = debiased_cka(features)
    changed = np.stack([features[0] @ rotation, 7 * features[1], features[2] + rng.normal(size=20)])
    assert debiased_cka(changed)[:3] == pytest.approx(plain[:3], abs=1e-10)
    assert debiased_cka(features[::-1])[:3] == pytest.approx(plain[:3], abs=1e-11)
    assert debiased_cka(np.stack([features[0], features[0] @ rotation])).mean == pytest.approx(1, abs=1e-10)
    assert debiased_cka(np.stack([features[0]] * 3).astype(np.float32))[:3] == (1, 1, 1)
    # Not invariant to a linear map: it must not be.
    assert debiased_cka(np.stack([features[0], features[0] * np.arange(1, 21) ** 2])).mean < 0.9


def biased_cka(one: np.ndarray, two: np.ndarray) -> float:
    one, two = one - one.mean(axis=0), two - two.mean(axis=0)
    first, second = one @ one.T, two @ two.T
    return float((first * second).sum() / math.sqrt((first * first).sum() * (second * second).sum()))


def test_cka_of_independent_features_is_about_zero_and_the_biased_one_is_not() -> None:
    rng = np.random.default_rng(2)
    pairs = rng.normal(size=(200, 2, 12, 60))
    found = [debiased_cka(pair).mean for pair in pairs]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(200)
    assert abs(np.mean(found)) < 0.03
    assert min(found) < 0
    assert np.mean([biased_cka(*pair) for pair in pairs]) > 0.7


@pytest.mark.parametrize(
    ("features", "why"),
    [
        (np.ones((1, 9, 2)), "two runs"),
        (np.ones((2, 3, 2)), "four images"),
        (np.ones((2, 9, 2)), "the same for all images"),
        (np.full((2, 9, 2), np.nan), "not finite"),
    ],
)
def test_cka_that_is_not_defined_says_why(features: np.ndarray, why: str) -> None:
    found = debiased_cka(features)
    assert found.mean is None
    assert why in found.reason
