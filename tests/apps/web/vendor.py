"""Fetches the two files of other projects that the pages use, and notes their versions, licences and hashes: `nox -s vendor`."""

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[3] / "trio_sagents" / "web" / "static" / "lib" / "vendor"
WANTED: Final = {
    "preact-htm.js": ("htm", "package/preact/standalone.module.js", "Apache-2.0 (htm), MIT (preact, which it contains)"),
    "smd.js": ("streaming-markdown", "package/smd.js", "MIT"),
}
"""By our name: the package, the file in it, and its licence."""


def main() -> None:
    """Fetch the newest versions, from the registry that npm is set up with."""
    noted: dict[str, Any] = {}
    for name, (package, member, licence) in WANTED.items():
        with tempfile.TemporaryDirectory() as folder:
            command = ["npm", "pack", package, "--json", "--pack-destination", folder]
            (about,) = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            with tarfile.open(Path(folder, about["filename"])) as archive:
                found = archive.extractfile(member)
                assert found is not None
                text = found.read()
        (FOLDER / name).write_bytes(text)
        noted[name] = {"package": package, "version": about["version"], "licence": licence, "sha256": hashlib.sha256(text).hexdigest()}
        print(f"{name}: {package} {about['version']}")
    (FOLDER / "vendor.json").write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
