"""Churn and weight similarity: brute force, closed forms and properties."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from twinrun.stats import churn as p
from twinrun.stats import weights as w
from twinrun.stats.pairs import churn_over_seeds
from twinrun.stats.samples import Estimate

classes = st.integers(0, 3)
several = arrays.arrays(np.int64, st.tuples(st.integers(2, 7), st.integers(1, 20)), elements=classes)


@given(several)
def test_mean_churn_is_that_of_all_pairs(predicted: np.ndarray) -> None:
    brute = np.mean([p.churn(a, b) for a, b in itertools.combinations(predicted, 2)])
    counts = p.class_counts(iter(predicted), predicted.shape[1], 4)
    assert p.mean_churn(counts, len(predicted)).value == pytest.approx(brute, abs=1e-12)
    again = p.class_counts(iter(predicted[::-1]), predicted.shape[1], 4)
    assert p.mean_churn(again, len(predicted)) == p.mean_churn(counts, len(predicted))


@given(several, st.data())
def test_churn_between_groups_is_that_of_their_pairs(predicted: np.ndarray, data: st.DataObject) -> None:
    group = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(predicted), max_size=len(predicted))))
    parts = [predicted[group == number] for number in range(3)]
    pairs = [p.churn(a, b) for one, two in itertools.combinations(parts, 2) for a in one for b in two]
    counts, sizes = [p.class_counts(iter(part), predicted.shape[1], 4) for part in parts], [len(part) for part in parts]
    assert p.pairs_between(sizes) == len(pairs)
    found = p.churn_between(counts, sizes)
    assert found.value == (pytest.approx(np.mean(pairs), abs=1e-12) if pairs else None)
    assert found.reason == ("" if pairs else "not defined: 1 of the 2 groups that it needs")


@given(arrays.arrays(np.int64, st.tuples(st.just(3), st.integers(1, 30)), elements=classes))
def test_churn_is_symmetric_and_between_its_bounds(rows: np.ndarray) -> None:
    first, second, labels = rows
    churn, one, two = p.churn(first, second), p.error(first, labels), p.error(second, labels)
    assert churn == p.churn(second, first)
    assert abs(one - two) <= churn + 1e-12
    assert churn <= one + two + 1e-12


def test_degenerate_churn_is_defined() -> None:
    two, none = "not defined: 1 of the 2 ", "not defined: no examples"
    assert p.mean_churn(np.ones((4, 2), np.int64), 1) == Estimate(None, f"{two}runs that it needs")
    assert p.mean_churn(np.empty((0, 2), np.int64), 3) == Estimate(None, none)
    assert p.churn_between([np.ones((4, 2), np.int64)], [2]) == Estimate(None, f"{two}groups that it needs")
    assert p.churn_between([np.empty((0, 2), np.int64)] * 2, [2, 1]) == Estimate(None, none)
    assert p.churn_ratio(0.0, 0.0) == Estimate(None, "not defined: there is nothing to divide by")
    assert p.churn_ratio(None, 0.1) == Estimate(None, "not defined: a churn or error is missing")
    with pytest.raises(ValueError, match="no examples"):
        p.churn(np.empty(0, np.int64), np.empty(0, np.int64))
    assert p.predicted_classes(np.array([[0.5, 0.5], [0.1, 0.9]])).tolist() == [0, 1]
    with pytest.raises(ValueError, match="shapes"):
        p.churn(np.zeros(3, int), np.zeros(4, int))


@pytest.mark.parametrize("runs", [3, 4, 5, 6])
@pytest.mark.parametrize("bad", [0.0, 0.6])
def test_the_interval_is_that_of_its_definition(runs: int, bad: float) -> None:
    """By pairs and by runs that are left out, one after the other: with and without a last run that is bad."""
    rng = np.random.default_rng(runs)
    errors = np.full((runs, 1), 0.2)
    errors[-1] += bad
    predicted = (rng.random((runs, 40)) < errors).astype(np.int64)

    def shares(kept: list[int]) -> np.ndarray:
        return np.mean([predicted[a] != predicted[b] for a, b in itertools.combinations(kept, 2)], axis=0)

    def jackknife(values: np.ndarray) -> np.ndarray:
        return (runs - 1) / runs * ((values - values.mean(axis=0)) ** 2).sum(axis=0)  # type: ignore[no-any-return]

    images = shares(list(range(runs)))
    variance = images.var(ddof=1) / 40
    without = np.array([shares([r for r in range(runs) if r != out]) for out in range(runs)])
    pairs_of_runs = float(jackknife(without.mean(axis=1)))
    apart = max(pairs_of_runs - float(jackknife(without).sum()) / 40**2, 0.0)
    assert (apart > 0) == (bad > 0)
    pairs_of_runs, apart = ((runs + 3) / (runs - 1) * part for part in (pairs_of_runs, apart))
    allowed, freedom = (pairs_of_runs, runs - 1) if runs < 5 else (pairs_of_runs if apart else 0.0, runs - 2)
    df = max((variance + apart) ** 2 / (variance**2 / 39 + allowed**2 / freedom), 1.0)
    half = stats.t.ppf(0.975, df) * math.sqrt(variance + apart) / images.mean()
    found = p.churn_interval(predicted, p.class_counts(iter(predicted), 40, 2))
    expected = (images.mean(), images.mean() * math.exp(-half), min(images.mean() * math.exp(half), 1.0))
    assert (found.value, found.low, found.high) == pytest.approx(expected, rel=1e-12)


vectors = arrays.arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(1, 6)), elements=st.floats(0.125, 8))


@settings(max_examples=50)
@given(vectors, st.sampled_from([1e-30, 0.5, 3.0, 1e30]))
def test_cosine_is_scale_invariant_and_bounded(heads: np.ndarray, factor: float) -> None:
    plain, scaled = w.pairwise_cosine(heads), w.pairwise_cosine(heads * factor)
    assert plain[:3] == pytest.approx(scaled[:3], abs=1e-11)
    assert -1 <= plain.minimum <= plain.mean + 1e-11
    assert plain.mean <= plain.maximum + 1e-11
    assert plain.maximum <= 1
    assert w.pairwise_cosine(heads[::-1])[:3] == pytest.approx(plain[:3], abs=1e-11)


def test_cosine_of_known_angles() -> None:
    found = w.pairwise_cosine(np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]))
    assert found[:3] == pytest.approx((-1 / 3, -1.0, 0.0))
    same = np.array([[0.1, 0.7, -0.3]] * 3, np.float32)
    assert w.pairwise_cosine(same)[:3] == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("heads", "reason"),
    [
        (np.ones((1, 3)), "two runs"),
        (np.array([[0.0, 0.0], [1.0, 1.0]]), "zeros"),
        (np.array([[np.nan, 0.0], [1.0, 1.0]]), "finite"),
    ],
)
def test_cosine_that_is_not_defined_says_why(heads: np.ndarray, reason: str) -> None:
    found = w.pairwise_cosine(heads)
    assert found[:3] == (None, None, None)
    assert reason in found.reason


def test_component_sd() -> None:
    heads = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    assert w.mean_component_sd(heads).value == pytest.approx(heads.astype(float).std(axis=0).mean())
    assert w.mean_component_sd(np.full((3, 4), 0.1, np.float32)).value == 0
    assert w.mean_component_sd(np.empty((0, 4))).reason == "not defined: no runs or no components"
    assert w.mean_component_sd(np.array([[np.nan], [1.0]])).reason == "not defined: a weight is not finite"


def seeds(rng: np.random.Generator, count: int, runs: int, shift: float) -> list[np.ndarray]:
    """Class counts of a binary network; seeds differ on images, and runs as a whole by `shift`."""
    common = rng.normal(size=400)
    own = common + 0.3 * rng.normal(size=(count, 1, 400)) + shift * rng.normal(size=(count, runs, 1))
    drawn = (own + 0.1 * rng.normal(size=(count, runs, 400)) > 0).astype(int)
    return [p.class_counts(iter(part), 400, 2) for part in drawn]


def test_churn_over_seeds_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    counts = seeds(rng, 4, 3, 0.2)
    found = churn_over_seeds(counts, [3] * 4)
    assert found.same.value == pytest.approx(np.mean([p.mean_churn(part, 3).value for part in counts]))
    assert found.other.value == pytest.approx(p.churn_between(counts, [3] * 4).value)
    assert found.ratio.value == pytest.approx(found.same.value / found.other.value)
    other_arm = [p.flip_shares(part, 2) for part in seeds(rng, 4, 2, 0.2)]
    assert churn_over_seeds(counts, [3] * 4, other_arm).same.value == pytest.approx(np.mean(other_arm))
    # The jackknife by brute force: the rows of each seed left out in turn.
    left = [churn_over_seeds(counts[:j] + counts[j + 1 :], [3] * 3).ratio.value for j in range(4)]
    assert np.std(left) > 0
    assert found.ratio.low < min(left)
    assert max(left) < found.ratio.high


@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_eight_seeds_of_two_runs_have_an_interval_that_covers(shift: float) -> None:
    rng = np.random.default_rng(1)
    truths = [
        churn_over_seeds(seeds(rng, 40, 4, shift), [4] * 40) for _ in range(30)
    ]  # many seeds, runs and images: the truth
    same, other = (float(np.mean([getattr(large, name).value for large in truths])) for name in ("same", "other"))
    held = []
    for _ in range(250):
        found = churn_over_seeds(seeds(rng, 8, 2, shift), [2] * 8)
        ends = ((found.same, same), (found.other, other), (found.ratio, same / other))
        held.append([interval.low <= truth <= interval.high for interval, truth in ends])
    assert (np.mean(held, axis=0) >= 0.92).all()


def test_two_seeds_have_no_interval_over_seeds() -> None:
    counts = seeds(np.random.default_rng(2), 2, 2, 0.0)
    found = churn_over_seeds(counts, [2, 2])
    assert found.same.value == pytest.approx(np.mean([p.mean_churn(part, 2).value for part in counts]))
    assert found.same.low is None
    assert found.ratio.reason == "not defined: three seeds with two runs that differ are needed"
