"""The committed table of coverage: complete, and what a small simulation finds again."""

import importlib.util
from types import ModuleType

import numpy as np
import pytest
from tests.conftest import REPOSITORY

from twinrun.stats.coverage import SHAPES, coverage_words, table

SIZES = (3, 5, 10, 30)
RUNS = ("normal", "skewed", "heavy", "bad", "effects")
CHURN = ("normal", "whole", "skewed", "heavy", "bad")
OF_RUNS = (
    "difference, Welch", "difference, paired t", "difference, over runs and images", "difference to one new run",
    "P(B > A), Newcombe", "SD, chi-square", "mean, t", "equivalent at the margin", "not worse at the margin",
    "power of 80 %, true SD",
)  # fmt: skip
COSTS = ("cost, ratio", "cost, five rungs without any", "cost, increments without any")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/coverage.py, which makes the table and its page."""
    spec = importlib.util.spec_from_file_location("coverage_benchmark", REPOSITORY / "benchmarks" / "coverage.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_interval_and_verdict_was_tried_with_every_shape_and_size() -> None:
    wanted = {(name, shape, n) for name in OF_RUNS for shape in RUNS for n in SIZES}
    wanted |= {("SD, bootstrap", shape, n) for shape in RUNS for n in SIZES[1:]}
    wanted |= {("difference, sequential", shape, 100) for shape in RUNS}
    wanted |= {(name, shape, n) for name in COSTS for shape in RUNS for n in (6, 10, 30)}
    wanted |= {("churn", shape, n) for shape in CHURN for n in SIZES}
    wanted |= {("churn, over seeds", shape, n) for shape in CHURN for n in (3, 5, 8)}
    wanted |= {
        ("published, agreement and SD known", shape, n) for shape in RUNS if shape != "effects" for n in (500, 2000)
    }
    assert wanted <= set(table())
    assert {shape for _, shape, _ in table()} == set(SHAPES)


def test_what_is_promised_holds_and_what_does_not_is_known() -> None:
    for name in ("difference, Welch", "difference, paired t", "difference, over runs and images"):
        for shape in ("normal", "skewed", "heavy", "bad"):
            assert min(table()[name, shape, n] for n in SIZES) >= 0.92, (name, shape)
        assert max(table()["difference, Welch", "effects", n] for n in SIZES) < 0.9
    for shape in ("normal", "skewed", "heavy", "bad"):
        assert table()["difference, sequential", shape, 100] >= 0.95
        for name in COSTS:
            assert min(table()[name, shape, n] for n in (6, 10, 30)) >= 0.92, (name, shape)
    for shape in ("normal", "whole"):
        assert min(table()["churn", shape, n] for n in SIZES) >= 0.93
        assert min(table()["churn, over seeds", shape, n] for n in (3, 5, 8)) >= 0.93
    assert table()["churn", "bad", 5] < 0.6  # five runs of which most often none is bad
    assert table()["SD, chi-square", "bad", 10] < 0.7


def test_the_page_is_the_table(benchmark: ModuleType) -> None:
    text = (REPOSITORY / "docs" / "coverage.md").read_text()
    assert text == benchmark.page()
    share = f"{100 * table()['SD, chi-square', 'bad', 10]:.0f}"
    row = next(line for line in text.splitlines() if line.startswith("| SD, chi-square | 10 |"))
    assert f"**{share}**" in row


def test_docs_quote_the_table() -> None:
    text = " ".join((REPOSITORY / "docs" / "compare.md").read_text().split())

    def span(name: str, sizes: tuple[int, ...]) -> str:
        shares = [100 * table()[name, "normal", n] for n in sizes]
        return f"{min(shares):.0f} to {max(shares):.0f} %"

    planned = "power of 80 %, planned from a pilot by its SD's "
    assert f"{span(planned + 'upper end', SIZES)} then reach the power that was asked for" in text
    assert f"by the SD's value only {span(planned + 'value', SIZES)} do." in text
    welch = f"{100 * table()['power of 80 %, true SD', 'normal', 3]:.0f} %"
    assert f"Welch's test has a power of {welch} where 80 % were planned" in text
    assert f"holds in {span('published, training noise left out', (500, 2000))} of cases (training noise" in text


def test_the_benchmark_makes_such_rows(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(0)
    for shape in benchmark.SHAPES:
        names = dict(benchmark.of_runs(shape, 5, rng))
        assert {name for name in OF_RUNS if name != "difference, over runs and images"} <= set(names)
        assert set(dict(benchmark.of_images(shape, 5, rng))) == {"difference, over runs and images"}
        assert set(dict(benchmark.of_cost(shape, 6, rng))) == set(COSTS)
    # The alike network's churn has a closed form.
    assert benchmark.true_churn("normal") == pytest.approx(np.arccos(1 / 1.01) / np.pi, rel=0.03)
    assert {*RUNS, *(f"churn, {shape}" for shape in CHURN)} <= set(benchmark.PARTS)


@pytest.mark.parametrize("n", [3, 10])
def test_a_row_of_the_table_is_found_again(n: int) -> None:
    rng = np.random.default_rng(n)
    gaps = rng.lognormal(size=(4000, n)) - rng.lognormal(size=(4000, n))
    t = np.abs(gaps.mean(axis=1)) / (gaps.std(axis=1, ddof=1) / np.sqrt(n))
    critical = {3: 4.303, 10: 2.262}[n]  # Student's t at n - 1
    assert np.mean(t <= critical) == pytest.approx(table()["difference, paired t", "skewed", n], abs=0.02)


def test_words_name_the_sizes_that_were_simulated() -> None:
    share = round(100 * table()["difference, Welch", "normal", 10])
    assert coverage_words("difference, Welch", 29).startswith(f"holds in simulations at n = 10: {share} % normal runs")
    assert coverage_words("difference, Welch", 10) == coverage_words("difference, Welch", 29)
    assert coverage_words("nothing", 10) == "was not simulated"
