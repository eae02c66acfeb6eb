"""The house: dependencies point one way, importing has no side effects, modules stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
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


# What the stages' commands begin with; of collect and locate the pipeline lists single modules.
STAGES = {
    "collect": ["analysis/collect.py"],
    "locate": ["launch/locate.py", "launch/pairs.py", "training/partner.py", "training/replay.py"],
    "analyze": ["analysis/analyze.py"],
    "report": ["analysis/report.py"],
}


def closure(entries: list[str]) -> set[Path]:
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


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_imports_is_among_its_dependencies(stage: str) -> None:
    content = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"][stage]
    deps = [REPOSITORY / dep for dep in content["deps"]]
    modules = {m for m in closure(STAGES[stage]) if m.name != "__init__.py"}
    missing = {str(m.relative_to(REPOSITORY)) for m in modules if not any(m.is_relative_to(dep) for dep in deps)}
    assert not missing


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
