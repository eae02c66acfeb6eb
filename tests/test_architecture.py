"""The house: dependencies point one way, importing has no side effects, modules stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "src" / "twinrun"
ALLOWED = {
    "study": {"study"},
    "data": {"study", "data"},
    "training": {"study", "data", "training"},
    "analysis": {"study", "analysis"},
    "launch": {"study", "launch"},
    "export": {"study", "analysis", "export"},
    "twins": {"study", "analysis", "training", "twins"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(module: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("part", ALLOWED)
def test_dependencies_point_one_way(part: str) -> None:
    for module in (PACKAGE / part).rglob("*.py"):
        ours = {name.split(".")[1] for name in imports(module) if name.startswith("twinrun.")}
        assert ours <= ALLOWED[part], module


def test_only_training_imports_torch() -> None:
    users = {m.relative_to(PACKAGE).parts[0] for m in MODULES if any(n.split(".")[0] == "torch" for n in imports(m))}
    assert users == {"training", "__init__.py"}  # the latter for its annotations alone


def test_study_needs_the_standard_library_pydantic_and_yaml_alone() -> None:
    for module in (PACKAGE / "study").glob("*.py"):
        foreign = {name.split(".")[0] for name in imports(module)} - set(sys.stdlib_module_names)
        assert foreign <= {"twinrun", "pydantic", "yaml"}, module


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_modules_say_what_they_are_and_stay_small(module: Path) -> None:
    text = module.read_text()
    assert text.startswith('"""'), "the first line says what the module is"
    limit = 330 if module.name in ("params.py", "cli.py") else 260
    assert text.count("\n") <= limit


def test_no_pickle_but_the_restricted_one_of_cifar() -> None:
    users = {m.name for m in MODULES if "pickle" in {name.split(".")[0] for name in imports(m)}}
    assert users <= {"cifar10.py"}
    for module in MODULES:
        assert "allow_pickle=True" not in module.read_text()


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "pandas", "matplotlib", "scipy", "pydantic", "yaml", "dvc"]
    code = f"import sys, twinrun.cli; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_params_yaml_is_read_in_one_place() -> None:
    readers = {m.name for m in MODULES if any(name.split(".")[0] == "yaml" for name in imports(m))}
    assert readers == {"yaml12.py"}
    users = {m.name for m in MODULES if any(name.startswith("twinrun.study.yaml12") for name in imports(m))}
    assert users == {"params.py"}
