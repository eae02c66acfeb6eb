"""Each rule gives its advice when the numbers decide, with them and their table, and none when they do not."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from twinrun.report.section import Draft
from twinrun.report.sections import guidelines as section

SEEDS = range(6)


def study(noise: str = "native", **sds: Any) -> Any:
    """Three nd runs in each of six cells, and three of the arm all, with these sample SDs; None: no run."""

    def samples(arm: str, metric: str = "") -> list[Any]:
        given = sds.get("sd_nd" if arm == "nd" else "sd_all")
        of_cells = given if isinstance(given, list) else [given] * len(SEEDS)
        return [np.array([0.9 - sd, 0.9, 0.9 + sd]) for sd in of_cells if sd is not None]

    def groups(arm: str, task: str) -> list[Any]:
        return [SimpleNamespace(known=lambda metric, values=values: values) for values in samples(arm)]

    # Of one seed, as far as variance components are concerned.
    setting = SimpleNamespace(samples=lambda arm, metric: samples(arm)[:1] if arm == "nd" else samples(arm))
    return SimpleNamespace(
        tasks=["digits"], optimizers=["sgd"], title=lambda task: "Digits", main_metric=lambda task: "accuracy",
        results=pd.DataFrame({"arm": ["det", "nd"], "noise": ["none", noise]}), groups=groups,
        settings=lambda task: [setting], setting_word="optimizer", imported=False, free_arm="nd",
        records=lambda part: True,
    )  # fmt: skip


def guidelines(known: Any, frames: dict[str, pd.DataFrame]) -> list[section.Guideline]:
    """Those of a study of which only these frames are known."""
    tables: Any = {name: SimpleNamespace(frame=frame) for name, frame in frames.items()}
    return section.guidelines(Draft(known, tables=tables))


def given(changes: dict[str, Any]) -> list[section.Guideline]:
    return guidelines(study(**changes), frames(**changes))


NO_RUN = {"n_det": 0, "distinct_det": 0, "n_nd": 0, "distinct_nd": 0}


def frames(**changes: Any) -> dict[str, pd.DataFrame]:
    """Six cells whose numbers decide nothing, but for `changes`: one value for all cells, or one a cell."""
    keys = {"task": "digits", "optimizer": "sgd", "arm": "nd"}
    values = {
        "determinism": NO_RUN,
        "churn": keys | {"churn": 0.1, "churn_low": 0.01, "n": 3},
        "hidden": keys | {"sd_accuracy": 0.05, "n": 3, "ensemble_gain": 0.0},
    }
    found = {}
    for name, row in values.items():
        mine = {key: value for key, value in changes.items() if key in row}
        found[name] = pd.DataFrame([row] * len(SEEDS)).assign(seed=list(SEEDS), **mine)
    low, high = changes.get("ratio", (0.6, 0.9))
    same = {"comparison": "nd, same seed", "over_seeds_low": low, "over_seeds_high": high}
    found["churn_arms"] = pd.DataFrame([{**keys, **same}])
    return found


RULES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], str]] = {
    # advice: (numbers that decide, numbers that do not, figures that it must carry)
    "Use deterministic mode": (
        {"n_det": 2, "distinct_det": 1},
        [{"n_det": 1, "distinct_det": 1}, {"n_det": 2, "distinct_det": [1, 1, 1, 1, 1, 2]}],
        '6 of 6 cells (table "Do the deterministic runs agree',
    ),
    "Do not rely on this study's deterministic mode": (
        {"n_det": 2, "distinct_det": [1, 1, 1, 1, 1, 2]},
        [{"n_det": 2, "distinct_det": 1}, {"n_det": 1, "distinct_det": 1}],
        '1 of 6 cells (table "Do the deterministic runs agree',
    ),
    "Do not expect a fixed seed": (
        {"n_nd": 3, "distinct_nd": 2},
        [{"n_nd": 1, "distinct_nd": 1}, {"n_nd": 3, "distinct_nd": [3, 3, 3, 3, 3, 1]}],
        '6 of 6 cells (table "Do the deterministic runs agree',
    ),
    "do not take two runs of one model for different for less than 3.1 points": (
        # t of 12 degrees of freedom, 2.179, sqrt(2) and the SD; with 1.96 it would be 2.77.
        {"sd_nd": 0.01},
        [{"sd_nd": 0.0}, {"sd_nd": [0.01, 0.01, None, None, None, None]}, {"sd_all": 0.01}],
        "Same-seed SD 1.0 points (95 % interval 0.72 to 1.7, 12 degrees of freedom; arm nd, 6 cells; table",
    ),
    "do not take two models, with one run of each, for different for less than 7.5 points": (
        # All eighteen runs of the arm all together: 3 sqrt(12 / 17) points, t of 17 degrees of freedom 2.110.
        {"sd_nd": 0.01, "sd_all": 0.03},
        [{"sd_nd": 0.03}, {"sd_all": [0.03, None, None, None, None, None]}],
        "Total SD 2.5 points (95 % interval 1.9 to 3.8, 17 degrees of freedom; arm all, 1 optimizer; table",
    ),
    "train at least 18 runs of one seed": (
        {"sd_nd": 0.01},
        [{"sd_nd": 0.0002}, {"sd_nd": 0.01, "sd_all": 0.01}],
        'arm nd, 6 cells; table "Spread of identical runs"). The smallest n with t SD / sqrt(n) of at '
        "most that; at the ends of the SD's interval 11 and 45.",
    ),
    "train at least 101 runs to know": (
        {"sd_nd": 0.01, "sd_all": 0.03},
        [{"sd_nd": 0.03}],
        "arm all, 1 optimizer",
    ),
    "report churn beside accuracy": (
        {"churn_low": 0.05, "sd_accuracy": 0.01},
        [{"churn_low": 0.05, "sd_accuracy": 0.05}, {"churn_low": [0.05] * 5 + [None], "sd_accuracy": 0.01}],
        "at least 5.0 %",
    ),
    "as large as the seed": (
        {"ratio": (0.93, 1.07)},
        [{"ratio": (0.79, 1.2)}, {"ratio": (None, None)}],
        "0.93 to 1.07",
    ),
    "the seed": (
        {"ratio": (0.23, 0.27)},
        [{"ratio": (0.23, 0.51)}],
        "0.23 to 0.27",
    ),
    "average the runs' probabilities": (
        {"ensemble_gain": [0.01, 0.02, 0.01, 0.02, 0.01, 0.02]},
        [{"ensemble_gain": [0.01, -0.02, 0.01, -0.02, 0.01, 0.02]}, {"ensemble_gain": [0.01, 0.02, *[None] * 4]}],
        "1.50 points",
    ),
}


@pytest.mark.parametrize("advice", RULES)
def test_each_rule_both_ways(advice: str) -> None:
    decided, undecided, figures = RULES[advice]
    found = [one for one in given(decided) if advice in one.advice]
    assert len(found) == 1
    assert figures in found[0].ground
    for changes in undecided:
        assert not any(advice in one.advice for one in given(changes))


def test_emulated_noise_says_nothing_of_a_fixed_seed() -> None:
    assert guidelines(study("reorder"), frames(n_nd=3, distinct_nd=2)) == []


def test_nothing_is_said_where_nothing_is_decided() -> None:
    assert given({}) == []
    draft: Any = SimpleNamespace(study=study(), frame=frames().__getitem__, tables=frames())
    assert section.sentences(draft) == ["The numbers of this study decide none of the rules."]


def test_every_sentence_carries_number_table_and_rule() -> None:
    for decided, _, _ in RULES.values():
        for one in given(decided):
            assert re.search(r"\d", one.ground)
            assert re.search(r'tables? "[A-Z]', one.ground)
            assert one.rule.startswith("given when")


def test_without_identical_runs_the_rules_work_from_the_arm_all() -> None:
    """And what needs identical runs says so in a line."""
    known = study(sd_all=0.01)
    known.free_arm = "all"
    changes = {"churn_low": 0.05, "sd_accuracy": 0.01, "ensemble_gain": [0.01, 0.02, 0.01, 0.02, 0.01, 0.02]}
    of_all = {name: frame.assign(arm="all") for name, frame in frames(**changes).items() if name != "determinism"}
    tables: Any = {name: SimpleNamespace(frame=frame) for name, frame in of_all.items()}
    said = section.sentences(Draft(known, tables=tables))
    assert "report churn beside accuracy" in said[2]
    assert "Runs of a cell disagree on 10.0 % of the images, at least 5.0 % in every" in said[2]
    assert '(tables "Churn of runs", "What accuracy hides")' in said[2]
    assert "average the runs' probabilities" in said[3]
    assert said[4:] == [
        "Whether the seed matters or the noise alone needs identical free runs: `nd_1`, `nd_2` and more in `runs` of "
        "`params.yaml`, with two seeds or more."
    ]
