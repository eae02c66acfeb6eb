"""The house: dependencies point one way, a run's code digest is its import closure, modules say what they are."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.conftest import REPOSITORY

from twinrun.study.checkout import CODE_PARTS

PACKAGE = REPOSITORY / "src" / "twinrun"
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
# Each package may use those that stand before it and that it names; `cli` may use all.
ALLOWED: dict[str, set[str]] = {
    "study": set(),
    "data": {"study"},
    "fetch": {"study", "data"},
    "training": {"study", "data"},
    "stats": {"study"},
    "collect": {"study", "stats"},
    "report": {"study", "stats", "collect"},
    "inspect": {"study", "data", "training", "collect"},
    "twins": {"study", "training", "inspect", "stats"},
    "launch": {"study", "data"},
    "export": {"study", "collect", "report"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))
USES_TORCH = {"training", "inspect"}


def imports(module: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def closure(*entries: str) -> set[Path]:
    """The modules of ours that these import, and that those import, anywhere in their code."""
    seen: set[Path] = set()
    ahead = [PACKAGE / entry for entry in entries]
    while ahead:
        module = ahead.pop()
        if module in seen:
            continue
        seen.add(module)
        stems = [PACKAGE.parent / n.replace(".", "/") for n in imports(module) if n.startswith("twinrun.")]
        ahead += [f for stem in stems for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file()]
    return seen


def code_deps(stage: str) -> set[Path]:
    """The Python files that DVC watches for a stage."""
    paths = [REPOSITORY / dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")]
    return {file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))}


def test_the_code_digest_of_a_run_its_dvc_deps_and_its_import_closure_are_the_same_files() -> None:
    digested = {file for part in CODE_PARTS for file in (PACKAGE / part).rglob("*.py")}
    trains = closure("training/loop.py", "data/prepare.py")
    docstrings_alone = {f for f in digested if f.name == "__init__.py" and not imports(f)}  # importing runs them, too
    assert trains | docstrings_alone == digested
    assert code_deps("train") == digested
    assert code_deps("prepare") <= digested


@pytest.mark.parametrize(
    ("stage", "entries"),
    [
        ("prepare", ["data/prepare.py"]),
        ("collect", ["collect/collect.py"]),
        ("locate", ["inspect/first_difference.py", "inspect/worker.py", "inspect/replay.py"]),
        ("analyze", ["report/build.py"]),
        ("report", ["report/page.py"]),
    ],
)
def test_what_a_stage_imports_is_among_its_dependencies(stage: str, entries: list[str]) -> None:
    assert closure(*entries) - code_deps(stage) == set()


def test_dependencies_point_one_way() -> None:
    order = list(ALLOWED)
    assert {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"} == {*order, "cli"}
    for part in order:
        assert ALLOWED[part] <= set(order[: order.index(part)]), f"{part}: a circle"
        for module in (PACKAGE / part).rglob("*.py"):
            ours = {name.split(".")[1] for name in imports(module) if name.startswith("twinrun.")}
            assert ours <= ALLOWED[part] | {part}, module


def test_torch_is_imported_by_training_and_inspect_alone() -> None:
    users = {m.relative_to(PACKAGE).parts[0] for m in MODULES if any(n.split(".")[0] == "torch" for n in imports(m))}
    assert users == {*USES_TORCH, "__init__.py"}  # the latter for its annotations alone


def test_study_needs_the_standard_library_pydantic_and_yaml_alone() -> None:
    for module in (PACKAGE / "study").glob("*.py"):
        foreign = {name.split(".")[0] for name in imports(module)} - set(sys.stdlib_module_names)
        assert foreign <= {"twinrun", "pydantic", "yaml"}, module


def test_modules_say_what_they_are_and_stay_readable() -> None:
    for module in MODULES:
        text = module.read_text()
        assert text.startswith('"""'), f"{module}: the first line says what the module is"
        assert text.count("\n") <= 420, module


def test_no_variable_is_called_one_found_or_mine() -> None:
    """A name says what the value is."""
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            names = {
                node.arg if isinstance(node, ast.arg) else None,
                node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else None,
                node.name if isinstance(node, ast.FunctionDef) else None,
            }
            assert not names & {"one", "found", "mine"}, f"{module}:{getattr(node, 'lineno', '')}"


def test_no_pickle_but_the_restricted_one_of_cifar() -> None:
    users = {m.name for m in MODULES if "pickle" in {name.split(".")[0] for name in imports(m)}}
    assert users <= {"cifar10.py"}
    for module in MODULES:
        assert "allow_pickle=True" not in module.read_text()


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "pandas", "matplotlib", "scipy", "pydantic", "yaml", "dvc", "rich"]
    code = f"import sys, twinrun.cli; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_params_yaml_is_read_in_one_place() -> None:
    readers = {m.name for m in MODULES if any(name.split(".")[0] == "yaml" for name in imports(m))}
    assert readers == {"yaml12.py", "up_to_date.py"}  # the second: DVC's lock, whose thousands of lines need C
    users = {m.name for m in MODULES if any(name.startswith("twinrun.study.yaml12") for name in imports(m))}
    assert users == {"params.py"}
