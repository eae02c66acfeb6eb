"""Print the bill of materials of this image as CycloneDX JSON: python bom.py LOCK; exit 4 when that is not installed.

Every Python package of the lock, with the hashes that the lock allows, and every Debian package.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = ("twinrun", "pip")  # what is installed and not in the lock: the project, and what the environment was made with


def locked(text: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each package of a lock that is meant for this interpreter."""
    packages = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", "\n" + text)[1:]:
        line, *others = block.replace("\\\n", "\n").splitlines()
        requirement = Requirement(line.strip())
        if requirement.marker is None or requirement.marker.evaluate():
            (version,) = requirement.specifier
            hashes = [match[1] for item in others if (match := re.search(r"--hash=sha256:([0-9a-f]{64})", item))]
            packages[canonicalize_name(requirement.name)] = (version.version, hashes)
    return packages


def differences(lock: Mapping[str, tuple[str, list[str]]], installed: Mapping[str, str]) -> list[str]:
    """How what is installed (versions by name) differs from the lock, in words."""
    wanted = {name: version for name, (version, _) in lock.items()}
    return [
        f"{name}: the lock has {wanted.get(name, 'none')}, installed is {installed.get(name, 'none')}"
        for name in sorted(wanted.keys() | installed.keys() - {*OURS})
        if wanted.get(name) != installed.get(name)
    ]


def bom(
    lock: Mapping[str, tuple[str, list[str]]], debian: Mapping[str, str], version: str, moment: str | None
) -> dict[str, Any]:
    """The bill of materials, as a CycloneDX 1.6 document; `moment` is left out where it is None."""
    components = [
        _component("pypi", name, number)
        | {"properties": [{"name": "lock:sha256", "value": value} for value in sorted(hashes)]}
        for name, (number, hashes) in sorted(lock.items())
    ]
    components += [_component("deb/debian", name, number) for name, number in sorted(debian.items())]
    described = {"component": {"type": "container", "name": "twinrun", "version": version, "bom-ref": "twinrun"}}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": described if moment is None else {"timestamp": moment, **described},
        "components": components,
    }


def _component(kind: str, name: str, version: str) -> dict[str, Any]:
    url = f"pkg:{kind}/{name}@{version.replace('+', '%2B').replace(':', '%3A')}"
    return {"type": "library", "name": name, "version": version, "purl": url, "bom-ref": url}


def main() -> int:
    """Print it, and say what is not as locked."""
    lock = locked(Path(sys.argv[1]).read_text())
    query = ["dpkg-query", "-W", "-f", "${Package}=${Version}\n"]
    debian = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC).isoformat().replace("+00:00", "Z") if epoch else None
    names = dict(line.split("=", 1) for line in debian)
    print(json.dumps(bom(lock, names, metadata.version("twinrun"), moment), indent=2))
    installed = {canonicalize_name(item.metadata["Name"]): item.version for item in metadata.distributions()}
    wrong = differences(lock, installed)
    for line in wrong:
        print(f"bom.py: {line}", file=sys.stderr)
    return 4 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
