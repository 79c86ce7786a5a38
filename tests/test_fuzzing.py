"""No mutated file does more to a reader than be refused; what fuzzing has found stays found (tests/corpus)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxredge.errors import one_line

sys.path.insert(0, str(Path(__file__).parent))
from fuzzing import IMAGES, KINDS, MARKER, mutated, require_refused_or_read

FOUND = [path for path in IMAGES if path.name.startswith("found-")]
VALID = [path for path in IMAGES if path not in FOUND]
SECONDS = os.environ.get("CXREDGE_FUZZ_SECONDS", "120")

edits = st.lists(
    st.tuples(st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True), st.binary(max_size=8)), min_size=1, max_size=4
)


def name_of(path: Path) -> str:
    return path.name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", VALID, ids=name_of)
def test_the_corpus_is_read(path: Path) -> None:
    assert require_refused_or_read(path) == "read"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", FOUND, ids=name_of)
def test_what_fuzzing_has_found_is_refused(path: Path) -> None:
    assert require_refused_or_read(path) == "refused"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", sorted({path.suffix for path in VALID}))
def test_mutated_files_are_refused_or_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mutated{suffix}"

    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from([valid for valid in VALID if valid.suffix == suffix]), edits)
    def check(source: Path, changes: list[tuple[str, float, bytes]]) -> None:
        path.write_bytes(mutated(source.read_bytes(), changes))
        require_refused_or_read(path)

    check()


@pytest.mark.slow
@pytest.mark.timeout(float(SECONDS) + 300)
def test_a_long_run_finds_nothing(tmp_path: Path) -> None:
    program = [sys.executable, "-W", "ignore", str(Path(__file__).parent / "fuzzing.py"), str(tmp_path)]
    done = subprocess.run([*program, "--seconds", SECONDS, "--seed", "7"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'read'" in done.stdout
    assert "failed" not in done.stdout


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (f"received b'\\x00{MARKER}' with length 85", "received b'...' with length 85"),
        (f"could not convert string to float: '{MARKER}'", "could not convert string to float: '...'"),
        (f'bad "{MARKER}\'s" value', "bad '...' value"),
        (f"bad '{MARKER}\\' and on", "bad '...'"),
        ("two\nlines", "two lines"),
        ("x" * 400, "x" * 297 + "..."),
    ],
)
def test_the_messages_of_libraries_are_passed_on_without_values(message: str, said: str) -> None:
    assert one_line(ValueError(message)) == said
