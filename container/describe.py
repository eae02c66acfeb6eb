"""Print what went into this image, as JSON: for people, and for comparing two images."""

import json
import os
import platform
import subprocess
from importlib import metadata

from twinrun.study.records import current_code_digest

debian = subprocess.run(
    ["dpkg-query", "-W", "-f", "${Package}=${Version}\n"], capture_output=True, text=True, check=True
)
facts = {
    "base_image": os.environ.get("BASE_IMAGE", "unknown"),
    "revision": os.environ.get("COMMIT", "unknown"),
    "version": metadata.version("twinrun"),
    "code_digest": current_code_digest(),
    "python": platform.python_version(),
    "python_packages": {d.metadata["Name"].lower(): d.version for d in metadata.distributions()},
    "debian_packages": dict(line.split("=", 1) for line in debian.stdout.split()),
}
print(json.dumps(facts, sort_keys=True, indent=2))
