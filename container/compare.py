"""Compare two Docker images file by file: python3 container/compare.py IMAGE IMAGE; exit 4 when files of ours differ.

Of every path: type, mode, owner, link target and SHA-256. Dates are left out: nothing here depends on them.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from typing import Any

OURS = "opt/twinrun/"
FACTS = OURS + "image.json"


def contents(image: str) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
    """What each path of the image is, and what its image.json says."""
    created = subprocess.run(["docker", "create", image], check=True, capture_output=True, text=True)
    container, paths, facts = created.stdout.strip(), {}, {}
    try:
        with (
            subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export,
            tarfile.open(fileobj=export.stdout, mode="r|") as archive,
        ):
            for member in archive:
                digest = None
                if (stream := archive.extractfile(member) if member.isreg() else None) is not None:
                    if member.name == FACTS:
                        facts = json.loads(text := stream.read())
                        stream = io.BytesIO(text)
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                paths[member.name] = (member.type, member.mode, member.uid, member.gid, member.linkname, digest)
    finally:
        subprocess.run(["docker", "rm", container], check=True, capture_output=True)
    return paths, facts


def different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The keys whose values differ, or that only one has."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def main() -> int:
    """Print what differs."""
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    (paths, facts), (other_paths, other_facts) = (contents(image) for image in sys.argv[1:3])
    for key in different(facts, other_facts):
        one, other = facts.get(key), other_facts.get(key)
        names = different(one, other) if isinstance(one, dict) and isinstance(other, dict) else [f"{one} / {other}"]
        print(f"image.json, {key}: {', '.join(names)}")
    names = different(paths, other_paths)
    ours = [name for name in names if name.startswith(OURS)]
    for name in names:
        print(f"differs: /{name}")
    total = sum(name.startswith(OURS) for name in paths)
    print(f"{len(paths)} paths, {len(names)} differ; of the {total} below /{OURS}, {len(ours)}")
    return 4 if ours or different(facts, other_facts) else 0


if __name__ == "__main__":
    sys.exit(main())
