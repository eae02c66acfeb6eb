"""The pytest plugin: twins of a function or a program (`twins`), and fingerprints recorded once (`golden_fingerprint`).

Installed with twinrun; it imports nothing heavy until a test asks for one of its fixtures.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

UPDATE = "--twinrun-update"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that records golden fingerprints."""
    parser.getgroup("twinrun").addoption(
        UPDATE, action="store_true", help="Record golden fingerprints of this platform instead of comparing with them."
    )


@pytest.fixture
def twins(tmp_path: Path) -> Callable[..., Any]:
    """Has identical twins: `twins(function)` or `twins("python train.py")`; AssertionError where they differ.

    A function is called `n` times, each time in `twinrun.controlled(seed)`, and its results are compared to the last
    bit; the last is returned. A command is run as `twinrun twins` does it, in copies of `folder`, and the result of
    the comparison is returned; options: `arm`, `outputs`, `metrics`, `link`, `seconds`, `interrupt`, `resume`.
    """

    def check(target: Callable[[], Any] | str | Sequence[str], n: int = 2, *, seed: int = 0, **options: Any) -> Any:
        __tracebackhide__ = True
        if n < 2:
            raise ValueError(f"twins: n is {n}; there must be at least 2 to compare")
        if callable(target):
            if options:
                raise TypeError(f"twins of a function take no {', '.join(options)}")
            return _call(target, n, seed)
        words = shlex.split(target) if isinstance(target, str) else list(target)
        return _run(words, n, seed, tmp_path / "twins", **options)

    return check


def _call(function: Callable[[], Any], n: int, seed: int) -> Any:
    __tracebackhide__ = True
    from twinrun.inspect.controlled import controlled
    from twinrun.twins.nested import differences, snapshot

    first: Any = None
    for number in range(1, n + 1):
        with warnings.catch_warnings():
            # It says on which other machines the bits may differ: these calls are compared on this one.
            warnings.filterwarnings("ignore", "twinrun.controlled")
            with controlled(seed):
                value = function()
        if number == 1:
            if value is None or (isinstance(value, dict | list | tuple) and not value):
                raise ValueError("twins: the function returned nothing: return what is to be compared, such as a model")
            first = snapshot(value)
            continue
        places = list(differences(first, value))
        if places:
            more = f" and {len(places) - 1} more places" if len(places) > 1 else ""
            raise AssertionError(f"call 1 and call {number} differ: {places[0]}{more}")
    return value


def _run(
    words: Sequence[str],
    n: int,
    seed: int,
    out: Path,
    *,
    folder: str | Path = ".",
    arm: str = "det",
    outputs: Sequence[str] = (),
    metrics: Sequence[str] = (),
    link: Sequence[str] = (),
    seconds: float | None = None,
    interrupt: str | None = None,
    resume: str | None = None,
) -> Any:
    __tracebackhide__ = True
    from twinrun.twins import interrupting
    from twinrun.twins.judging import run_and_judge
    from twinrun.twins.reporting import sentences
    from twinrun.twins.running import Plan, own_folder

    stop = interrupt and interrupting.interrupt(interrupt, "TERM", shlex.split(resume) if resume else words)
    with own_folder(Path(folder), out, words) as out:
        plan = Plan(words, Path(folder), out, outputs, link, seconds, interrupt=stop or None)
        result = run_and_judge(plan, arm, seed, max(n, 3) if stop else n, metrics, log=not (outputs or metrics or stop))
    if result.exit_code:
        raise AssertionError("\n".join(sentences(result)))
    return result


@pytest.fixture
def golden_fingerprint(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Compares a value with the fingerprint recorded for this platform: `golden_fingerprint(model)`.

    They are kept in `fingerprints/<module>.json` beside the test, by test (and `name`, for several in one test).
    `pytest --twinrun-update` records them.
    """

    def check(value: Any, name: str = "") -> None:
        __tracebackhide__ = True
        from twinrun.twins import golden

        file = request.path.with_name("fingerprints") / f"{request.path.stem}.json"
        label = " ".join(filter(None, [request.node.name, name]))
        golden.check(file, label, value, update=request.config.getoption(UPDATE))

    return check
