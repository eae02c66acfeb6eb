"""Holm and Benjamini-Hochberg: against scipy and brute force, and their error rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from twinrun.stats.multiplicity import benjamini_hochberg, holm

families = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(families)
def test_benjamini_hochberg_is_that_of_scipy(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p), abs=1e-15)


@given(families, st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float], alpha: float) -> None:
    rejected = set()
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        if p[place] * (len(p) - rank) > alpha:
            break
        rejected.add(place)
    assert {place for place, value in enumerate(holm(p)) if value <= alpha} == rejected


@given(families, st.randoms())
def test_order_does_not_matter_and_missing_ones_do_not_count(p: list[float], random) -> None:
    order = random.sample(range(len(p)), len(p))
    for adjust in (holm, benjamini_hochberg):
        plain = adjust(p)
        assert adjust([p[place] for place in order]) == [plain[place] for place in order]
        assert adjust([None, *p, None]) == [None, *plain, None]
        assert all(raw - 1e-15 <= value <= 1 for value, raw in zip(plain, p, strict=True))


def test_holm_keeps_the_family_wise_error() -> None:
    rng = np.random.default_rng(0)
    false = [min(holm(list(rng.random(10)))) <= 0.05 for _ in range(4000)]
    assert 0.04 <= np.mean(false) <= 0.06


def test_degenerate_families() -> None:
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1, 1]
    assert benjamini_hochberg([None]) == [None]
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.5])
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([float("nan")])
