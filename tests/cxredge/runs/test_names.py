"""Results stay in the output folder under names that every file system takes."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxredge.errors import OutputError
from cxredge.runs.names import LONGEST_NAME, require_inside, safe_name, safe_path

ORDINARY = ["chest", "1.2.840.113.7", "Ärztin 03", "胸部-01", "a_b-c (2)", ".hidden", "console", "com10", "x" * 223]
HOSTILE = {
    "..": "__-",
    ".": "_-",
    "a/../../b": "a_.._.._b-",
    "..\\..\\b": ".._.._b-",
    "C:\\x": "C__x-",
    "a\nb": "a_b-",
    "a\x1b[31mb": "a_[31mb-",
    "a\x00b": "a_b-",
    "a\u202egnp": "a_gnp-",
    "a\udcff": "a_-",
    'a<>:"|?*b': "a_______b-",
    "a. ": "a__-",
    "CON": "_CON-",
    "nul.1": "_nul.1-",
    "LpT1": "_LpT1-",
    "x" * 224: "x" * 214 + "-",
    "胸" * 100: "胸" * 71 + "-",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_name_is_kept(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize(("name", "start"), HOSTILE.items(), ids=[ascii(name)[:20] for name in HOSTILE])
def test_a_hostile_name_is_made_safe_and_stays_itself(name: str, start: str) -> None:
    safe = safe_name(name)
    assert safe[:-8] == start
    assert len(safe.encode()) <= LONGEST_NAME
    assert safe_name(safe) == safe


@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=300))
def test_every_name_becomes_one_part_of_a_path_that_can_be_written(name: str) -> None:
    safe = safe_name(name)
    assert PurePath(safe).parts == (safe,)
    assert safe not in (".", "..")
    assert len(safe.encode("utf-8")) <= LONGEST_NAME
    assert safe_name(safe) == safe


@given(st.lists(st.text(st.sampled_from("a.:/ \n"), min_size=1, max_size=4), unique=True))
def test_different_names_stay_different(names: list[str]) -> None:
    assert len({safe_name(name) for name in names}) == len(names)


def test_the_parts_of_a_path_are_made_safe_one_by_one() -> None:
    assert safe_path(PurePath("night/a:b/chest")) == PurePath("night", safe_name("a:b"), "chest")
    assert safe_path(PurePath("/etc/passwd")) == PurePath("etc/passwd")
    assert safe_path(PurePath("../../etc/passwd")).parts[2:] == ("etc", "passwd")


# Inside


def test_a_result_inside_has_its_place(tmp_path: Path) -> None:
    assert require_inside(tmp_path, "sub/a.mask.png") == tmp_path / "sub" / "a.mask.png"
    (tmp_path / "sub").mkdir()
    assert require_inside(tmp_path, PurePath("sub/a.mask.png")) == tmp_path / "sub" / "a.mask.png"


@pytest.mark.parametrize("name", ["../a", "sub/../../a", "/etc/a", "C:\\a", "\\\\server\\a", "\\a", ".."])
def test_a_result_outside_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="outside"):
        require_inside(tmp_path, name)


def test_the_output_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    require_inside(tmp_path / "link", "sub/a")


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "deep" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"deep/sub: leads out of the output folder through a link; remove the link"):
        require_inside(tmp_path / "out", "deep/sub/a")
    (tmp_path / "out" / "inner").symlink_to("deep")
    require_inside(tmp_path / "out", "inner/a")


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError):
        require_inside(tmp_path, "a/b/c")
