"""Fetches the two files of other projects that the pages use, and notes their versions, licences and hashes: `nox -s vendor`."""

import hashlib
import io
import json
import tarfile
import urllib.request
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[3] / "trio_sagents" / "web" / "static" / "lib" / "vendor"
REGISTRY: Final = "https://registry.npmjs.org"
WANTED: Final = {
    "preact-htm.js": ("htm", "package/preact/standalone.module.js", "Apache-2.0 (htm), MIT (preact, which it contains)"),
    "smd.js": ("streaming-markdown", "package/smd.js", "MIT"),
}
"""By our name: the package, the file in it, and its licence."""


def _read(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=60) as answer:
        data: bytes = answer.read()
    return data


def main() -> None:
    """Fetch the newest versions."""
    noted: dict[str, Any] = {}
    for name, (package, member, licence) in WANTED.items():
        about = json.loads(_read(f"{REGISTRY}/{package}/latest"))
        with tarfile.open(fileobj=io.BytesIO(_read(about["dist"]["tarball"]))) as archive:
            found = archive.extractfile(member)
            assert found is not None
            text = found.read()
        (FOLDER / name).write_bytes(text)
        noted[name] = {"package": package, "version": about["version"], "licence": licence, "sha256": hashlib.sha256(text).hexdigest()}
        print(f"{name}: {package} {about['version']}")
    (FOLDER / "vendor.json").write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
