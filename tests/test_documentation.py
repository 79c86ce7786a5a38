"""Snippets of the documentation run as they stand, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cxredge.phantom import make_radiograph

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
SNIPPET = re.compile(r"<!-- snippet: (\w+) -->\n```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")
USES = {
    "load": "made = np.load(folder / '0.npy'); assert exposed(made, (0.14, 0.14)).any()",
    "submit": "assert on_exposure(made).result().mask.any(); assert on_exposure(made * 0).exception() is not None",
    "asyncio": "found = asyncio.run(areas([made] * 20)); assert len(found) == 20 and 0.1 < min(found) < 0.5",
    "stream": "",
    "close": """
import threading
assert threading.active_count() == 1
try:
    segmenter(made)
except CxredgeError as error:
    assert str(error) == "the segmenter is closed"
else:
    raise AssertionError("a closed segmenter segmented")
""",
}
"""What the test does with each snippet of ``in-the-process.md`` after it has run."""


def test_a_host_can_be_written_from_the_page(tmp_path: Path) -> None:
    snippets = SNIPPET.findall((ROOT / "docs" / "in-the-process.md").read_text(encoding="utf-8"))
    assert [name for name, _ in snippets] == list(USES)
    for seed in range(3):
        np.save(tmp_path / f"{seed}.npy", make_radiograph(seed, 200 + 20 * seed, 180).pixels)
    program = "import sys\nfrom pathlib import Path\n\nfolder = Path(sys.argv[1])\n"
    program += "".join(f"{code}\n{USES[name]}\n" for name, code in snippets)
    (tmp_path / "host.py").write_text(program, encoding="utf-8")
    done = subprocess.run([sys.executable, tmp_path / "host.py", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    areas = re.findall(r"^0\.\d+$", done.stdout, re.MULTILINE)
    assert len(areas) == 1 + 3, "of the callback and of the stream"
    assert "all pixels are equal" in done.stdout, "an error is told"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert missing == []
