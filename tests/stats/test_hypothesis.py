"""Tests and effect sizes: against scipy, by their size, and what they are for degenerate samples."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy import stats

from twinrun.stats import effects, hypothesis, normality, permutation
from twinrun.stats.compare import unpaired_error
from twinrun.stats.equivalence import Equivalence, tost, tost_against_one, tost_paired
from twinrun.stats.samples import Outcome

FREE = [0.91, 0.93, 0.9, 0.96, 0.92]
OTHER = [0.95, 0.97, 0.94, 0.99]
integers = st.lists(st.integers(-1000, 1000), min_size=3, max_size=8, unique=True)


def size(reject: Callable[[np.random.Generator], bool], times: int = 3000, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    return float(np.mean([reject(rng) for _ in range(times)]))


def tost_welch(first: ArrayLike, second: ArrayLike, margin: float) -> Equivalence:
    """As a comparison of two groups does it, first - second."""
    a, b = np.sort(first), np.sort(second)
    error = unpaired_error(b, a)
    return tost(error.difference, error.standard_error, error.df, margin, (a.size, b.size))


SIZES: dict[str, Callable[[np.random.Generator, int], float | None]] = {
    "one-sample t": lambda rng, n: hypothesis.one_sample_t(rng.normal(size=n), 0.0).p,
    "prediction interval": lambda rng, n: hypothesis.prediction_test(rng.normal(size=n), rng.normal()).p,
    "paired t": lambda rng, n: hypothesis.paired_t(rng.normal(size=n)).p,
    "Welch": lambda rng, n: hypothesis.welch_t(rng.normal(size=n), 3 * rng.normal(size=n)).p,
    "TOST, Welch": lambda rng, n: tost_welch(rng.normal(size=n) + 9, rng.normal(size=n), 9.0).p,
    "TOST, one run": lambda rng, n: tost_against_one(rng.normal(size=n), rng.normal() + 20, 20.0).p,
    "TOST, paired": lambda rng, n: tost_paired(rng.normal(size=n) + 9, 9.0).p,
}


@pytest.mark.parametrize("n", [5, 30])
@pytest.mark.parametrize("name", SIZES)
def test_size(name: str, n: int) -> None:
    assert 0.04 <= size(lambda rng: SIZES[name](rng, n) < 0.05, seed=n + 2) <= 0.06


def test_size_of_permutations() -> None:
    splits = size(lambda r: permutation.permutation_test(r.normal(size=5), r.normal(size=5), r).p <= 0.05, 2000)
    many = size(lambda r: permutation.permutation_test(r.normal(size=30), r.normal(size=30), r, 399).p <= 0.05, 2000)
    signs = size(lambda r: hypothesis.sign_permutation(r.normal(size=30), r, 399).p <= 0.05, 2000)
    assert all(0.04 <= share <= 0.06 for share in (splits, many, signs))


def rank_sums(values: np.ndarray) -> np.ndarray:
    """H of (studies, groups, runs) without ties."""
    studies, groups, runs = values.shape
    ranks = values.reshape(studies, -1).argsort(axis=1).argsort(axis=1) + 1
    sums, total = ranks.reshape(values.shape).sum(axis=2), groups * runs
    h: np.ndarray = 12 / (total * (total + 1)) * (sums**2 / runs).sum(axis=1) - 3 * (total + 1)
    return h


@pytest.mark.parametrize(("runs", "least", "most"), [(5, 0.03, 0.045), (30, 0.04, 0.06)])
def test_size_of_kruskal_wallis(runs: int, least: float, most: float) -> None:
    """By chi-square it is cautious for five runs."""
    values = np.random.default_rng(runs).normal(size=(6000, 5, runs))
    h = rank_sums(values)
    for study in range(20):
        assert hypothesis.kruskal_wallis(values[study]).statistic == pytest.approx(h[study])
    assert least <= np.mean(stats.chi2.sf(h, 4) < 0.05) <= most


def test_size_of_rank_tests_of_pairs() -> None:
    """Five pairs cannot show anything by their signs."""
    assert 0.04 <= size(lambda r: hypothesis.signed_rank(r.normal(size=30)).p < 0.05, 1000) <= 0.06
    assert hypothesis.signed_rank([1.0, 2.0, 3.0, 4.0, 5.0]).p == 0.0625
    assert hypothesis.sign_permutation([1.0, 2.0, 3.0, 4.0, 5.0], np.random.default_rng(0)).p == 0.0625


@pytest.mark.parametrize(
    ("runs", "classic", "least", "most"), [(5, False, 0.025, 0.045), (30, False, 0.04, 0.06), (5, True, 0.0, 0.01)]
)
def test_size_of_brown_forsythe(runs: int, classic: bool, least: float, most: float) -> None:
    """By the F table the classic form is far too cautious for five runs, and the one without structural zeros a bit."""
    values = np.random.default_rng(runs).normal(size=(6000, 5, runs))
    apart = np.abs(values - np.median(values, axis=2, keepdims=True))
    if not classic:
        apart = np.sort(apart, axis=2)
        apart[:, :, 1] *= math.sqrt(2) if runs % 2 == 0 else 1
        apart = apart[:, :, 1:]
    p = stats.f_oneway(*apart.transpose(1, 2, 0)).pvalue
    for study in range(20):
        cells = [[cell] for cell in values[study]]
        assert hypothesis.brown_forsythe(cells, classic=classic).p == pytest.approx(p[study])
    assert least <= np.mean(p < 0.05) <= most


def test_patterns_and_splits_are_all_tried_up_to_their_limits() -> None:
    """At the limit p is a whole number of patterns, whatever the generator; above it a share of those drawn."""
    rng = np.random.default_rng(0)
    fourteen = np.arange(1.0, 15.0)
    assert hypothesis.sign_permutation(fourteen, rng).p == 2.0**-13
    assert hypothesis.sign_permutation(np.arange(1.0, 16.0), rng, 999).p == 1 / 1000
    tied = np.repeat(np.arange(1.0, 8.0), 2)
    assert hypothesis.signed_rank(tied).p == 2.0**-13
    assert (
        hypothesis.signed_rank(np.append(tied, 8.0)).p == stats.wilcoxon(np.append(tied, 8.0), method="approx").pvalue
    )
    eight, nine = np.arange(8.0), np.arange(9.0)
    assert permutation.permutation_test(eight, eight + 10, rng).p == 2 / 12870
    assert permutation.permutation_test(nine, nine + 10, rng, 999).p == 1 / 1000
    for single in (([9.0], [1.0, 2.0, 3.0]), ([1.0, 2.0, 3.0], [9.0])):
        assert permutation.permutation_test(*single, rng).p == 1 / 4
    apart = np.arange(25.0).reshape(5, 5) + 10 * np.arange(5.0)[:, None]  # nothing that is drawn reaches it
    assert permutation.kruskal_wallis_permuted(list(apart), rng, 99).p == 1 / 100


RESAMPLED: dict[str, Callable[[np.random.Generator], Outcome]] = {
    "ranks of five": lambda r: permutation.kruskal_wallis_permuted(r.exponential(size=(5, 5)), r, 39),
    "ranks of four": lambda r: permutation.kruskal_wallis_permuted(r.normal(size=(3, 4)), r, 39),
    "ranks of thirty": lambda r: permutation.kruskal_wallis_permuted(r.normal(size=(5, 30)), r, 39),
    "noise of five": lambda r: permutation.brown_forsythe_simulated(list(r.normal(size=(5, 1, 5)) * 3 + 7), r, 39),
    "noise of four": lambda r: permutation.brown_forsythe_simulated(list(r.normal(size=(3, 1, 4))), r, 39),
    "noise of thirty": lambda r: permutation.brown_forsythe_simulated(list(r.normal(size=(5, 1, 30))), r, 39),
    "noise within seeds": lambda r: permutation.brown_forsythe_simulated(list(r.normal(size=(2, 5, 5))), r, 39),
}


@pytest.mark.parametrize("name", RESAMPLED)
def test_size_of_resampled_tests(name: str) -> None:
    assert 0.04 <= size(lambda r: RESAMPLED[name](r).p <= 0.05, 1000, seed=11) <= 0.06


def test_resampled_tests_have_the_statistic_of_the_plain_ones() -> None:
    rng = np.random.default_rng(0)
    values = [[0.1, 0.4, 0.2], [0.5, 0.9, 0.7], [0.8, 0.45, 0.6]]
    plain, permuted = hypothesis.kruskal_wallis(values), permutation.kruskal_wallis_permuted(values, rng)
    assert (permuted.statistic, permuted.effect) == (plain.statistic, plain.effect)
    # All 1,680 ways to split nine values into three groups of three.
    ranks = stats.rankdata(np.concatenate(values))
    found = []
    for first in itertools.combinations(range(9), 3):
        rest = [place for place in range(9) if place not in first]
        for second in itertools.combinations(rest, 3):
            third = [place for place in rest if place not in second]
            found.append(sum(ranks[list(part)].sum() ** 2 for part in (first, second, third)))
    observed = sum(sum(part) ** 2 for part in ranks.reshape(3, 3))
    exact = np.mean(np.array(found) >= observed - 1e-9)
    assert permuted.p == pytest.approx(exact)
    drawn = permutation.kruskal_wallis_permuted(values, rng, 1679).p  # fewer than there are ways: random ones
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 1679))
    cells = [[[1.0, 2.0, 4.0, 5.0]], [[1.0, 1.1, 1.3, 1.2]]]
    assert permutation.brown_forsythe_simulated(cells, rng).statistic == hypothesis.brown_forsythe(cells).statistic
    many = list(rng.normal(size=(5, 1, 40)))
    simulated = permutation.brown_forsythe_simulated(many, rng).p
    assert simulated == pytest.approx(hypothesis.brown_forsythe(many).p, abs=0.02)


@pytest.mark.parametrize(("n", "expected"), [(5, 0.32), (10, 0.51), (30, 0.72)])
def test_size_of_the_thesis_test(n: int, expected: float) -> None:
    """Its reference is a single run, not a known mean: simulated, and by the closed form."""
    found = size(lambda rng: hypothesis.one_sample_t(rng.normal(size=n), rng.normal()).p < 0.05, 4000)
    assert hypothesis.size_if_a_draw(n) == pytest.approx(expected, abs=0.005)
    assert found == pytest.approx(hypothesis.size_if_a_draw(n), abs=0.02)


def same(found: Outcome, expected: object) -> None:
    statistic, p = expected.statistic, expected.pvalue  # type: ignore[attr-defined]
    assert (found.statistic, found.p) == pytest.approx((statistic, p), rel=1e-9)


def test_standard_tests_are_those_of_scipy() -> None:
    same(hypothesis.one_sample_t(FREE, 0.95), _negated(stats.ttest_1samp(FREE, 0.95)))
    same(hypothesis.paired_t(np.array(FREE) - 0.9), stats.ttest_1samp(np.array(FREE) - 0.9, 0))
    same(hypothesis.anova([FREE, OTHER, [0.9, 0.91]]), stats.f_oneway(FREE, OTHER, [0.9, 0.91]))
    same(hypothesis.kruskal_wallis([FREE, OTHER, [0.9, 0.91]]), stats.kruskal(FREE, OTHER, [0.9, 0.91]))
    same(hypothesis.welch_t(FREE, OTHER), stats.ttest_ind(FREE, OTHER, equal_var=False))
    same(hypothesis.brown_forsythe([[FREE], [OTHER]], classic=True), stats.levene(FREE, OTHER, center="median"))
    same(normality.shapiro_wilk(FREE), stats.shapiro(FREE))
    tied = [*FREE, FREE[0], *np.linspace(min(FREE), max(FREE), normality.FEW - len(FREE) - 1)]
    same(normality.shapiro_wilk(tied), stats.shapiro(tied))


def test_mann_whitney_counts_pairs() -> None:
    same(hypothesis.mann_whitney(FREE, OTHER), stats.mannwhitneyu(OTHER, FREE))
    apart = hypothesis.mann_whitney([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert (apart.statistic, apart.p, apart.effect) == (9.0, pytest.approx(2 / 20), 1.0)  # 2 of 20 splits
    ties = hypothesis.mann_whitney([1.0, 2.0], [2.0, 3.0])
    assert (ties.statistic, ties.effect) == (3.5, 0.875)
    assert hypothesis.mann_whitney([2.0, 3.0], [1.0, 2.0]).effect == 0.125
    assert hypothesis.mann_whitney([1.0, 1.0], [1.0]).reason == "not defined: all 3 values are equal"


def _negated(found: object) -> object:
    class Negated:
        statistic, pvalue = -found.statistic, found.pvalue  # type: ignore[attr-defined]

    return Negated


def test_permutations_are_those_of_scipy() -> None:
    # Groups of one size: otherwise scipy doubles the smaller tail, where this takes both.
    exact = stats.permutation_test(
        (FREE[1:], OTHER), lambda x, y, axis: x.mean(axis) - y.mean(axis), n_resamples=np.inf
    )
    assert permutation.permutation_test(FREE[1:], OTHER, np.random.default_rng(0)).p == pytest.approx(exact.pvalue)
    gaps = [0.3, -0.1, 0.4, 0.2, 0.7, -0.2]
    exact = stats.permutation_test(
        (gaps,), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=np.inf
    )
    assert hypothesis.sign_permutation(gaps, np.random.default_rng(0)).p == pytest.approx(exact.pvalue)
    assert hypothesis.signed_rank(gaps).p == pytest.approx(_ranked(gaps))


def _ranked(gaps: list[float]) -> float:
    ranks = np.sign(gaps) * stats.rankdata(np.abs(gaps))
    return float(
        stats.permutation_test(
            (ranks,), lambda x, axis: x.sum(axis), permutation_type="samples", n_resamples=np.inf
        ).pvalue
    )


def test_the_prediction_test_is_the_one_sample_t_over_the_root_of_n_plus_one() -> None:
    wrong, right = hypothesis.one_sample_t(FREE, 0.99), hypothesis.prediction_test(FREE, 0.99)
    assert right.statistic == pytest.approx(wrong.statistic / math.sqrt(6))
    assert right.p == pytest.approx(2 * stats.t.sf(right.statistic, 4))


def test_effect_sizes() -> None:
    u = stats.mannwhitneyu(FREE, OTHER).statistic
    assert effects.rank_biserial(FREE, OTHER).value == pytest.approx(2 * u / 20 - 1)
    pooled = math.sqrt((4 * np.var(FREE, ddof=1) + 3 * np.var(OTHER, ddof=1)) / 7)
    assert effects.cohens_d(FREE, OTHER).value == pytest.approx((np.mean(FREE) - np.mean(OTHER)) / pooled)
    # Unbiased: the mean of g over samples of three is the true difference.
    rng = np.random.default_rng(0)
    found = [effects.hedges_g(rng.normal(size=3) + 1, rng.normal(size=3)).value for _ in range(8000)]
    assert np.mean(found) == pytest.approx(1, abs=0.04)
    assert effects.g_against_one([1.0, 2.0], 3.0).reason == (
        "not defined: 1 degree of freedom, Hedges' correction needs 2"
    )


def test_normal_scores_are_normal_in_pools_of_small_cells() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([normality.normal_scores(rng.normal(size=3))[0] for _ in range(2000)])
    assert stats.kstest(scores, "norm").statistic < 0.02
    assert normality.normal_scores([1.0, 2.0, 3.0])[0].size == 3  # of an SD of 1
    assert normality.plot_positions(5) == pytest.approx(-normality.plot_positions(5)[::-1])


TESTS: dict[str, Callable[[list[float]], Outcome]] = {
    "one-sample t": lambda values: hypothesis.one_sample_t(values, 3.0),
    "prediction": lambda values: hypothesis.prediction_test(values, 3.0),
    "paired t": hypothesis.paired_t,
    "signed rank": hypothesis.signed_rank,
    "signs": lambda values: hypothesis.sign_permutation(values, np.random.default_rng(0)),
    "ANOVA": lambda values: hypothesis.anova([values, [1.0, 2.0, 4.0]]),
    "Kruskal-Wallis": lambda values: hypothesis.kruskal_wallis([values, [1.5, 2.5, 4.5]]),
    "Brown-Forsythe": lambda values: hypothesis.brown_forsythe([[values], [[1.0, 2.0, 4.0]]]),
    "Kruskal-Wallis, permuted": lambda values: permutation.kruskal_wallis_permuted(
        [values, [1.5, 2.5, 4.5]], np.random.default_rng(0), 199
    ),
    "Brown-Forsythe, simulated": lambda values: permutation.brown_forsythe_simulated(
        [[values], [[1.0, 2.0, 4.0]]], np.random.default_rng(0), 199
    ),
    "Welch": lambda values: hypothesis.welch_t(values, [1.0, 2.0, 4.0]),
    "permutation": lambda values: permutation.permutation_test(values, [1.0, 2.0, 4.0], np.random.default_rng(0)),
    "Shapiro-Wilk": normality.shapiro_wilk,
}


@settings(max_examples=60, deadline=None)
@given(integers, st.randoms(), st.sampled_from(sorted(TESTS)))
def test_order_does_not_matter(values: list[int], random, name: str) -> None:
    assert TESTS[name](random.sample(values, len(values))) == TESTS[name](values)


SCALED = {
    "prediction": lambda x, k: hypothesis.prediction_test(x * k, 3 * k),
    "paired t": lambda x, k: hypothesis.paired_t(x * k),
    "signs": lambda x, k: hypothesis.sign_permutation(x * k, np.random.default_rng(0)),
    "ANOVA": lambda x, k: hypothesis.anova([x * k, np.array([1.0, 2, 4]) * k]),
    "Brown-Forsythe": lambda x, k: hypothesis.brown_forsythe([[x * k], [np.array([1.0, 2, 4]) * k]]),
    "permutation": lambda x, k: permutation.permutation_test(
        x * k, np.array([1.0, 2, 4]) * k, np.random.default_rng(0)
    ),
}


@settings(max_examples=60, deadline=None)
@given(integers, st.sampled_from([1e-6, 0.3, 7.0, 1e6]), st.sampled_from(sorted(SCALED)))
def test_units_do_not_matter(values: list[int], factor: float, name: str) -> None:
    plain, scaled = (SCALED[name](np.array(values, float), unit) for unit in (1.0, factor))
    assert (plain.p is None) == (scaled.p is None)
    if plain.p is not None:
        assert scaled.p == pytest.approx(plain.p, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize("values", [[], [math.nan, 1.0, 2.0]])
def test_degenerate_samples_have_a_reason(name: str, values: list[float]) -> None:
    found = TESTS[name](values)
    assert (found.statistic, found.p) == (None, None)
    assert found.reason.startswith("not defined: ")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lambda: hypothesis.prediction_test([0.5, 0.5], 0.7), "all 2 values are equal"),
        (lambda: hypothesis.prediction_test([0.5, 0.6], math.nan), "a value is missing"),
        (lambda: hypothesis.paired_t([0.1]), "1 of the 2 differences"),
        (lambda: hypothesis.signed_rank([0.0, 0.0]), "all 2 differences are 0"),
        (lambda: hypothesis.anova([[1.0, 2.0]]), "1 of the 2 groups"),
        (lambda: hypothesis.anova([[1.0], [2.0]]), "one value per group"),
        (lambda: hypothesis.anova([[1.0, 1.0], [2.0, 2.0]]), "no spread within any group"),
        (lambda: hypothesis.kruskal_wallis([[1.0, 1.0], [1.0, 1.0]]), "all 4 values are equal"),
        (lambda: hypothesis.brown_forsythe([[[1.0, 2.0]], [[1.0, 2.0, 3.0]]]), "2 of the 3 values"),
        (lambda: hypothesis.welch_t([1.0, 1.0], [2.0, 2.0]), "no spread"),
        (lambda: normality.shapiro_wilk([0.5, 0.5, 0.6]), "ties among 3 values"),
        (lambda: tost_against_one([0.5, 0.5], 0.6, 0.1), "all 2 values are equal"),
    ],
)
def test_reasons(found: Callable[[], Outcome], words: str) -> None:
    assert words in found().reason


def test_equivalence_is_the_interval_within_the_margin() -> None:
    for margin in (0.01, 0.03, 0.06, 0.1, 0.2):
        found = tost_welch(FREE, OTHER, margin)
        assert (found.p < 0.05) == (-margin < found.low and found.high < margin)
        lower = stats.ttest_ind(np.array(FREE) + margin, OTHER, equal_var=False, alternative="greater").pvalue
        upper = stats.ttest_ind(np.array(FREE) - margin, OTHER, equal_var=False, alternative="less").pvalue
        assert found.p == pytest.approx(max(lower, upper))
    with pytest.raises(ValueError, match="above 0"):
        tost_paired(FREE, 0.0)
    two = tost_paired([0.1, 0.2], 1.0)
    assert (two.low, two.high) == pytest.approx(stats.ttest_1samp([0.1, 0.2], 0).confidence_interval(0.9))
