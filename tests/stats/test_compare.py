"""Comparing two groups of runs: against scipy, by the rate of false verdicts, and what cannot be told."""

import math

import numpy as np
import pytest
from scipy import stats

from twinrun.stats import effects
from twinrun.stats.compare import Error, Verdict, all_pairs, compare, two_way_error, unpaired_error
from twinrun.stats.power import power_of_t, power_of_tost, smallest_detectable
from twinrun.stats.sequential import confidence_sequence

RNG = np.random.default_rng(0)
A = [0.91, 0.93, 0.90, 0.96, 0.92]
B = [0.95, 0.97, 0.94, 0.99]


def test_the_unpaired_interval_is_welchs() -> None:
    item = compare(A, B, RNG)
    expected = stats.ttest_ind(B, A, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert (item.interval.low, item.interval.high) == pytest.approx((low, high))
    assert (item.test.statistic, item.test.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert item.not_worse
    assert compare(A, B, RNG, margin=0.02).not_worse == (low > -0.02)
    assert item.superiority.value == pytest.approx(stats.mannwhitneyu(B, A).statistic / 20)


def test_the_paired_interval_is_that_of_differences() -> None:
    item = compare(A[:4], B, RNG, paired=True, margin=0.1)
    expected = stats.ttest_rel(B, A[:4])
    assert item.test.p == pytest.approx(expected.pvalue)
    assert item.interval.low == pytest.approx(expected.confidence_interval(0.95).low)
    assert item.permutation.p == 0.125
    assert item.permutation_floor == 0.125
    assert item.correlation == pytest.approx(np.corrcoef(A[:4], B)[0, 1])
    welch = stats.ttest_ind(B, A[:4], equal_var=False).confidence_interval(0.95)
    assert item.width_unpaired == pytest.approx(welch.high - welch.low)
    upper = stats.ttest_1samp(np.array(B) - A[:4] - 0.1, 0, alternative="less").pvalue
    lower = stats.ttest_1samp(np.array(B) - A[:4] + 0.1, 0, alternative="greater").pvalue
    assert item.equivalence.p == pytest.approx(max(upper, lower))


@pytest.mark.parametrize(("n", "floor"), [((3, 3), 0.1), ((5, 5), 2 / 252), ((3, 4), 1 / 35)])
def test_the_floor_of_a_permutation_p_is_reached(n: tuple[int, int], floor: float) -> None:
    item = compare(np.arange(n[0]) ** 2, 100 + np.arange(n[1]) ** 2, RNG)
    assert item.permutation_floor == pytest.approx(floor)
    assert item.permutation.p == pytest.approx(floor)


def test_verdicts() -> None:
    assert compare(A, B, RNG).verdict is Verdict.BETTER
    assert compare(B, A, RNG).verdict is Verdict.WORSE
    assert compare(A, B, RNG, higher_is_better=False).verdict is Verdict.WORSE
    same = [0.5, 0.51, 0.49, 0.5, 0.505]
    assert compare(same, same[::-1], RNG, margin=0.05).verdict is Verdict.EQUIVALENT
    assert compare(same, same[::-1], RNG).verdict is Verdict.CANNOT_TELL
    close = compare(same, np.add(same, 0.004), RNG, margin=0.02)
    assert close.not_worse
    assert not compare(np.add(same, 0.05), same, RNG, margin=0.02).not_worse
    assert compare(np.add(same, 0.05), same, RNG, margin=0.02, higher_is_better=False).not_worse
    assert not compare([0.1, 0.9, 0.4], [0.2, 0.6, 0.5], RNG).not_worse


def test_the_number_of_further_runs_is_the_smallest_that_would_tell() -> None:
    a, b = [0.0, 1.0, 2.0], [0.8, 1.8, 2.8]  # SD 1 each, difference 0.8
    more = compare(a, b, RNG).more.n
    shown = [power_of_t(0.8, math.sqrt(2 / (3 + k)), 2 * (3 + k) - 2) for k in (more - 1, more)]
    assert shown[0] < 0.8 <= shown[1]
    assert 3 + more == 26  # Cohen's table: d = 0.8, power 80 %
    pairs = compare(a, [0.8, 1.0, 3.0], RNG, paired=True)
    gaps = np.array([0.8, 0.0, 1.0])
    k = pairs.more.n
    powers = [power_of_t(gaps.mean(), gaps.std(ddof=1) / math.sqrt(3 + m), 2 + m) for m in (k - 1, k)]
    assert powers[0] < 0.8 <= powers[1]
    equal = compare(a, [0.1, 1.1, 2.1], RNG, margin=1.0).more.n
    told = [power_of_tost(1.0, math.sqrt(2 / (3 + m)), 2 * (3 + m) - 2, difference=0.1) for m in (equal - 1, equal)]
    assert told[0] < 0.8 <= told[1]
    assert compare([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], RNG).more.n is None
    assert power_of_t(3.0, math.sqrt(1 / 3), 4) >= 0.8  # of two runs each with a variance of 0.5: a third one tells
    assert compare([0.0, 1.0], [3.0, 4.0], RNG).more.n == 1


def test_the_smallest_detectable_difference_has_that_power() -> None:
    item = compare(A, B, RNG)
    error = math.sqrt(np.var(A, ddof=1) / 5 + np.var(B, ddof=1) / 4)
    assert power_of_t(item.detectable, error, item.test.df[0]) == pytest.approx(0.8)
    assert smallest_detectable(math.sqrt(2 / 17), 32) == pytest.approx(0.991, abs=0.001)  # 17 an arm find one SD


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([0.5], [0.6], "1 of the 2 runs of A"),
        ([0.5, 0.5], [0.6, 0.6], "what was free changed nothing"),
        ([0.5, math.nan], [0.6, 0.7], "a value is missing"),
        ([], [0.1, 0.2], "0 of the 2 runs of A"),
        ([0.5, 0.5], [0.6], "all 2 runs are equal"),
    ],
)
def test_what_cannot_be_compared_says_why(a: list[float], b: list[float], words: str) -> None:
    item = compare(a, b, RNG, margin=0.1)
    assert item.verdict is Verdict.CANNOT_TELL
    assert words in item.interval.reason
    assert (item.interval.low, item.detectable, item.more) == (None, None, None)
    assert not item.not_worse


def test_a_single_run_is_held_against_the_spread_of_the_others() -> None:
    item = compare(A, [0.99], RNG)
    half = stats.t.ppf(0.975, 4) * np.std(A, ddof=1) * math.sqrt(1.2)
    assert (item.interval.low, item.interval.high) == pytest.approx((0.066 - half, 0.066 + half))


def test_pairs_have_one_length() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        compare([1.0, 2.0], [1.0], RNG, paired=True)
    assert len(all_pairs(["a", "b", "c", "d"])) == 6


def test_the_two_way_error_is_runs_plus_images_less_what_both_make() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.random((4, 30)) < 0.7, rng.random((6, 30)) < 0.8
    a, b = a.astype(float), b.astype(float)
    found = two_way_error(a, b)
    runs = a.mean(axis=1).var(ddof=1) / 4 + b.mean(axis=1).var(ddof=1) / 6
    images = (b.mean(axis=0) - a.mean(axis=0)).var(ddof=1) / 30
    both = sum(part.var(axis=0, ddof=1).sum() / len(part) for part in (a, b)) / 30**2
    assert isinstance(found, Error)
    assert found.difference == pytest.approx(b.mean() - a.mean())
    assert found.standard_error**2 == pytest.approx(max(runs + images - both, runs, images))
    pairs = two_way_error(a, b[:4], paired=True)
    gaps = b[:4] - a
    within = gaps.var(axis=0, ddof=1).sum() / 4 / 30**2
    runs, images = gaps.mean(axis=1).var(ddof=1) / 4, gaps.mean(axis=0).var(ddof=1) / 30
    assert isinstance(pairs, Error)
    assert pairs.standard_error**2 == pytest.approx(max(runs + images - within, runs, images))
    assert two_way_error(a[:1], b) == "not defined: two runs of each and two images are needed"
    assert "no run differs" in str(two_way_error(np.ones((2, 5)), np.ones((3, 5))))


def test_the_two_way_interval_holds_on_other_images() -> None:
    rng, held, alone = np.random.default_rng(7), [], []
    for _ in range(500):
        hard = rng.normal(size=(2, 1, 300))  # the models find other images hard, equally often
        a, b = ((part + 0.3 * rng.normal(size=(5, 300)) > -1).astype(float) for part in hard)
        error, over_runs = two_way_error(a, b), unpaired_error(*(np.sort(part.mean(axis=1)) for part in (a, b)))
        assert isinstance(error, Error)
        assert isinstance(over_runs, Error)
        held.append(abs(error.difference) <= stats.t.ppf(0.975, error.df) * error.standard_error)
        alone.append(abs(over_runs.difference) <= stats.t.ppf(0.975, over_runs.df) * over_runs.standard_error)
    assert 0.92 <= np.mean(held) <= 0.98
    assert np.mean(alone) < 0.75  # an interval over runs alone is for these images


def test_superiority_is_u_and_its_interval_holds() -> None:
    rng = np.random.default_rng(3)
    for n, shift in ((3, 1.0), (5, 0.0), (10, 1.0)):
        true, held = stats.norm.cdf(shift / math.sqrt(2)), []
        for _ in range(600):
            found = effects.superiority(rng.normal(shift, 1, n), rng.normal(size=n))
            held.append(found.low - 1e-9 <= true <= found.high + 1e-9)
        assert 0.93 <= np.mean(held) <= 1
    ties = effects.superiority([1.0, 2.0, 2.0], [2.0, 2.0, 3.0])
    assert ties.value == pytest.approx(stats.mannwhitneyu([1.0, 2.0, 2.0], [2.0, 2.0, 3.0]).statistic / 9)
    assert effects.superiority([3.0, 4.0, 5.0], [0.0, 1.0, 2.0]).high == 1
    assert effects.superiority([1.0], [2.0]).reason == "not defined: one value of each"


def sequences(gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and half width after every pair of (studies, pairs): the formula on whole arrays."""
    n = np.arange(1, gaps.shape[1] + 1)
    means = gaps.cumsum(axis=1) / n
    variances = np.maximum((np.square(gaps).cumsum(axis=1) - n * means**2) / np.maximum(n - 1, 1), 0)
    k = 1.0 + n
    growth = (k * 400) ** (1 / n)
    finite = (growth < k) & (n >= 5)
    t = np.sqrt(np.where(finite, (n - 1) * (growth - 1) / np.where(finite, 1 - growth / k, 1), np.inf))
    with np.errstate(invalid="ignore"):
        return means, t * np.sqrt(variances / n)


def test_looking_after_every_pair_is_wrong_at_most_one_time_in_twenty() -> None:
    rng = np.random.default_rng(4)
    shape = (6000, 100)
    for gaps in (rng.normal(size=shape), rng.lognormal(size=shape) - rng.lognormal(size=shape)):
        means, halves = sequences(gaps)
        for study in range(3):
            for pairs in (5, 20, 100):
                interval = confidence_sequence(gaps[study, :pairs])
                assert interval.low == pytest.approx(means[study, pairs - 1] - halves[study, pairs - 1])
        assert (np.abs(means) > halves).any(axis=1).mean() <= 0.05
    plain = stats.t.ppf(0.975, np.arange(1, 100)) / np.sqrt(np.arange(2, 101))
    normal = rng.normal(size=shape)
    n = np.arange(2, 101)
    means = (normal.cumsum(axis=1) / np.arange(1, 101))[:, 1:]
    sds = np.sqrt((np.square(normal).cumsum(axis=1)[:, 1:] - n * means**2) / (n - 1))
    assert (np.abs(means) > plain * sds).any(axis=1).mean() > 0.3  # what looking does to a plain t interval


def test_a_sequential_comparison_uses_that_interval() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=30), rng.normal(1.5, 1, 30)
    item = compare(a, b, RNG, sequential=True)
    assert item.interval == confidence_sequence(b - a)
    assert item.verdict is Verdict.BETTER
    assert compare(a[:4], b[:4], RNG, sequential=True).verdict is Verdict.CANNOT_TELL
    single = confidence_sequence([0.3])
    assert (single.value, single.reason) == (0.3, "not defined: 1 of the 5 pairs that it needs")
    assert confidence_sequence([0.3, math.nan]).value is None
    tight = compare(a, a + rng.normal(scale=0.01, size=30), RNG, sequential=True, margin=0.5)
    assert tight.verdict is Verdict.EQUIVALENT


def test_a_group_without_spread_keeps_it_when_further_runs_are_counted() -> None:
    noisy, fixed = [0.90, 0.94, 0.89, 0.95], [0.93, 0.93, 0.93, 0.93]
    few = compare(noisy, fixed, np.random.default_rng(0)).more
    many = compare(noisy, [value + 0.01 for value in noisy], np.random.default_rng(0)).more
    assert few is not None
    assert many is not None
    # One noisy group of two makes half the variance of the difference: about half as many runs at the same difference.
    assert few.n is not None
    assert many.n is not None
    assert 0.4 < few.n / many.n < 0.6
