"""The files of the pages: small, safe, and what their notes say."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from trio_sagents.web._static import read_files

STATIC: Final = Path(__file__).parents[3] / "trio_sagents" / "web" / "static"
VENDOR: Final = STATIC / "lib" / "vendor"
OWN: Final = [path for path in sorted(STATIC.rglob("*")) if path.suffix in {".js", ".css", ".html"} and VENDOR not in path.parents]
NODE: Final = shutil.which("node")


def test_source_when_counted() -> None:
    """The pages have at most 2,500 lines of source; what they take from others is at most 40 KB compressed."""
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in OWN) <= 2500
    assert len(gzip.compress(b"".join(path.read_bytes() for path in VENDOR.glob("*.js")))) < 40_000


def test_vendored_files_when_compared() -> None:
    """Each file of another project is the one that its note describes, with a version and a licence."""
    noted = json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))

    assert {path.name for path in VENDOR.glob("*.js")} == noted.keys()
    for name, note in noted.items():
        assert note["sha256"] == hashlib.sha256((VENDOR / name).read_bytes()).hexdigest()
        assert note["version"]
        assert note["licence"]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_source_when_read(path: Path) -> None:
    """No text becomes markup or code, nothing stands in a page that the policy refuses, and nothing is fetched from elsewhere."""
    text = path.read_text(encoding="utf-8")

    assert [] == re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|\beval\(|new Function", text)
    assert [] == re.findall(r"""<script>|<style|\son\w+="|\sstyle=""", text) if path.suffix == ".html" else True
    assert [] == re.findall(r"""(?:src|href|from|import)\s*[=(]?\s*["']https?:""", text)


def test_files_when_served() -> None:
    """Every file that a page names is served."""
    served = read_files()
    for name in ("index.html", "debug.html"):
        for wanted in re.findall(r'(?:src|href)="static/([^"]+)"', served[name].body.decode()):
            assert wanted in served
    for path in OWN:
        if path.suffix == ".js":
            for wanted in re.findall(r'from "(\.[^"]+)"', path.read_text(encoding="utf-8")):
                assert (path.parent / wanted).resolve().relative_to(STATIC).as_posix() in served


@pytest.mark.skipif(NODE is None, reason="there is no Node.js")
def test_diff_when_run() -> None:
    """The changes of a file edit, line by line; a whole file is all new; other arguments are no change of a file."""
    program = (
        f"import {{ changesOf, diffLines }} from {json.dumps((STATIC / 'lib' / 'diff.js').as_uri())};"
        "const lines = (found) => found && found.map((line) => line.kind[0] + line.text).join('|');"
        "console.log(JSON.stringify([lines(diffLines('a\\nb\\nc', 'a\\nx\\nc\\nd')), lines(diffLines('', 'a')),"
        "lines(diffLines('a\\nb', 'b\\na')),"
        "lines(changesOf({path: 'p', content: 'a\\nb'})), changesOf({city: 'Rome'})]))"
    )
    found = subprocess.run([NODE or "", "--input-type=module", "-e", program], capture_output=True, text=True, check=True).stdout

    assert ["sa|ob|nx|sc|nd", "na", "oa|sb|na", "na|nb", None] == json.loads(found)
