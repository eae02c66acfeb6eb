"""Compare two Docker images file by file: python3 container/compare.py IMAGE IMAGE; exit 4 when files of ours differ.

Of every path: type, mode, owner, link target and SHA-256. Dates and layers, on which nothing here depends, are named
apart: they decide whether two images have the same digest.
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


def contents(image: str) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any], dict[str, float]]:
    """What each path of the image is, what its image.json says, and the date of each path."""
    created = subprocess.run(["docker", "create", image], check=True, capture_output=True, text=True)
    container, paths, facts, dates = created.stdout.strip(), {}, {}, {}
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
                dates[member.name] = member.mtime
                paths[member.name] = (member.type, member.mode, member.uid, member.gid, member.linkname, digest)
    finally:
        subprocess.run(["docker", "rm", container], check=True, capture_output=True)
    return paths, facts, dates


def described(image: str) -> dict[str, Any]:
    """The parts of an image that its digest is made of."""
    done = subprocess.run(["docker", "image", "inspect", image], check=True, capture_output=True, text=True)
    facts = json.loads(done.stdout)[0]
    layers = {f"layer {number}": digest for number, digest in enumerate(facts["RootFS"]["Layers"], 1)}
    return {"digest": facts["Id"], "created": facts["Created"], "configuration": facts["Config"], **layers}


def different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The keys whose values differ, or that only one has."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def main() -> int:
    """Print what differs."""
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    (paths, facts, dates), (other_paths, other_facts, other_dates) = (contents(image) for image in sys.argv[1:3])
    apart = different(*(described(image) for image in sys.argv[1:3]))
    print(f"the images differ in {', '.join(apart)}" if apart else "the images have the same digest")
    older = [name for name in different(dates, other_dates) if name in dates and name in other_dates]
    if older:
        print(f"{len(older)} paths have other dates, such as /{older[0]}")
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
