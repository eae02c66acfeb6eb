"""The core, which is what pyproject.toml installs without extras: it serves whatever does not train a study."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
# What a distribution is called by those who import it, where that is another name.
MODULES = {"pyyaml": "yaml", "pillow": "PIL", "nvidia-ml-py": "pynvml", "mlflow-skinny": "mlflow"}


def modules(requirements: list[str]) -> set[str]:
    names = {re.split(r"[<>=\[ ]", line)[0] for line in requirements}
    return {MODULES.get(name, name) for name in names}


CORE, STUDY = modules(PROJECT["dependencies"]), modules(PROJECT["optional-dependencies"]["study"])
EXTRAS = {name for extra in PROJECT["optional-dependencies"].values() for name in modules(extra)}


def imported(folder: Path) -> set[str]:
    """The packages from elsewhere that the modules of a folder import, anywhere in them."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    ours = {name for name in names if name.startswith("twinrun")}  # the tracer's files import each other by name
    return names - ours - set(sys.stdlib_module_names) - {"pytest"}  # pytest itself imports the plugin


def test_what_is_imported_is_declared() -> None:
    assert imported(REPOSITORY / "src") <= CORE | EXTRAS
    assert not CORE & STUDY


@pytest.mark.parametrize("package", ["study", "stats", "collect", "report", "twins", "cli"])
def test_the_results_and_the_users_programs_need_the_core_alone(package: str) -> None:
    assert imported(REPOSITORY / "src" / "twinrun" / package) <= CORE | EXTRAS - STUDY | {"torch"}


HIDING = """
import sys

class Hidden:
    def find_spec(name, path=None, target=None):
        if name == hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

hidden = sys.argv.pop(1)
sys.meta_path.insert(0, Hidden)
from twinrun.cli.app import main
main()
"""


def without(package: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process that cannot import the package."""
    command = [sys.executable, "-c", HIDING, package, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_a_command_says_which_package_it_lacks(tmp_path: Path) -> None:
    done = without("requests", "data", "fetch", "cifar10", cwd=tmp_path)
    assert done.returncode == 2
    assert "needs requests, which is not installed here" in done.stderr
    assert "pip install '.[study]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_compare_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("model,accuracy\n" + "".join(f"a,0.9{i}\nb,0.8{i}\n" for i in range(6)))
    done = without("torch", "compare", "runs.csv", "--metric", "accuracy", "--by", "model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "is better" in done.stdout
