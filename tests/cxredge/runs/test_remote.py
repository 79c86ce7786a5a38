"""URLs: which radiographs are found at one, how they are fetched, and what tells that they have changed."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'cxredge[ray]'")
pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'cxredge[ray]'")

from cxredge.cli import main  # noqa: E402 (only where they are)
from cxredge.errors import InputError  # noqa: E402
from cxredge.runs import remote  # noqa: E402
from cxredge.runs.discovery import find_radiographs  # noqa: E402
from cxredge.runs.remote import fetch, find_remote, open_place, remote_signature  # noqa: E402


@pytest.fixture
def memory() -> Iterator[Any]:
    """A file system of fsspec's that pyarrow does not serve itself."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


@pytest.fixture
def segment(model_file: Path) -> Any:
    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(main, ["segment", "--model", str(model_file), *map(str, arguments)])

    return run


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_folder_at_a_url_is_searched_by_the_rules_of_a_folder(mixed_folder: Path, tmp_path: Path) -> None:
    (mixed_folder / "g3.dcm").rename(mixed_folder / "1.2.840")
    (mixed_folder / "sub dir").mkdir()
    (mixed_folder / "g1.png").rename(mixed_folder / "sub dir" / "50% ö.png")
    for name in (".hidden.png", "old.mask.png", "DICOMDIR"):
        (mixed_folder / name).write_bytes(b"")
    local = find_radiographs([mixed_folder], tmp_path / "out").targets
    at_url = find_radiographs([mixed_folder.as_uri()], tmp_path / "out").targets
    assert sorted(target.stem for target in at_url) == sorted(target.stem for target in local) != []
    for target in at_url:
        assert target.url is not None
        assert remote_signature(target.url) is not None, target.url


def test_results_of_urls_are_those_of_files(segment: Any, mixed_folder: Path, tmp_path: Path) -> None:
    outputs = ["--format", "png,dicom-seg,contour-json", "--keep-identity"]
    assert segment(mixed_folder, "-o", tmp_path / "local", *outputs).exit_code == 3
    assert segment(mixed_folder.as_uri(), "-o", tmp_path / "url", *outputs).exit_code == 3
    untimed = {"milliseconds": None, "input": None}
    local, at_url = lines(tmp_path / "local"), lines(tmp_path / "url")
    assert [{**line, **untimed} for line in at_url] == [{**line, **untimed} for line in local]
    assert [line["input"] for line in at_url] == [(mixed_folder / Path(line["input"]).name).as_uri() for line in local]
    for name in (name for line in local for name in line["outputs"]):
        assert (tmp_path / "url" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_only_what_has_changed_at_a_url_is_done_again(
    segment: Any, one_image_folder: Path, tmp_path: Path, chest: np.ndarray
) -> None:
    Image.fromarray(chest).save(one_image_folder / "other.png")
    arguments = [one_image_folder.as_uri(), "-o", tmp_path / "out"]
    assert segment(*arguments).exit_code == 0
    assert "resume   2 of 2" in segment(*arguments, "--resume").output
    Image.fromarray(chest.T).save(one_image_folder / "other.png")
    assert "resume   1 of 2" in segment(*arguments, "--resume").output
    assert [line["height"] for line in lines(tmp_path / "out")] == [80, 96]


def test_nothing_that_was_fetched_stays(
    segment: Any, mixed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert segment(mixed_folder.as_uri(), "-o", tmp_path / "out").exit_code == 3
    assert list((tmp_path / "temporary").iterdir()) == []


def test_what_is_not_there_is_a_failed_line(segment: Any, one_image_folder: Path, tmp_path: Path) -> None:
    absent = (one_image_folder / "absent.png").as_uri()
    result = segment(one_image_folder.as_uri(), absent, "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert [(line["status"], line["error"]) for line in lines(tmp_path / "out")] == [
        ("ok", None),
        ("failed", "cannot be read: there is no such object"),
    ]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense://bucket/scan.png", "Protocol not known: nonsense"),
        ("s3://key:secret@bucket/scan.png", "a URL with a password would be kept in the results"),
        ("s3://user:a/secret@bucket/scan.png", "a URL with a password would be kept in the results"),
        ("simplecache::ftp://user:secret@host/scan.png", "a URL with a password would be kept in the results"),
        ("s3://bucket/scan.png?region=x&Access_Key=secret", "a URL with a key, token or signature would be kept"),
        ("simplecache::https://host/scan.png?sig=secret", "a URL with a key, token or signature would be kept"),
    ],
)
def test_urls_that_cannot_be_used_are_refused(segment: Any, tmp_path: Path, url: str, reason: str) -> None:
    result = segment(url, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert reason in result.output
    assert "secret" not in result.output
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_other_file_systems_are_reached_through_fsspec(memory: Any, tmp_path: Path) -> None:
    memory.pipe("/scans/sub/a.png", b"content")
    memory.pipe("/scans/notes.txt", b"content")
    ((url, name),) = find_remote("memory://scans")
    assert (url, name.as_posix()) == ("memory://scans/sub/a.png", "sub/a.png")
    signature = fetch(url, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"content"
    assert signature == remote_signature(url) != None  # noqa: E711 (all three)
    memory.pipe("/scans/sub/a.png", b"CONTENT")
    assert remote_signature(url) != signature


@pytest.mark.parametrize(
    ("folder", "url"),
    [
        ("memory:///scans", "memory:///scans/a.png"),
        ("memory:///scans/", "memory:///scans/a.png"),
        ("memory://scans?x=1", "memory://scans/a.png?x=1"),
        ("memory://", "memory://a.png"),
        ("memory:///", "memory:///a.png"),
        ("file:///", "file:///a.png"),
        ("file:///scans/", "file:///scans/a.png"),
    ],
)
def test_files_below_a_url_are_at_urls_of_its_form(memory: Any, folder: str, url: str) -> None:
    memory.pipe("/scans/a.png", b"content")
    assert open_place(folder).below(PurePosixPath("a.png")) == url


@pytest.mark.parametrize("root", ["memory://", "memory:///"])
def test_the_root_of_a_store_can_be_searched(memory: Any, root: str, tmp_path: Path) -> None:
    memory.pipe("/a.png", b"content")
    memory.pipe("/scans/b.png", b"other")
    found = sorted(find_remote(root))
    assert [name.as_posix() for _, name in found] == ["a.png", "scans/b.png"]
    for url, name in found:
        fetch(url, tmp_path / name.name)
    assert [(tmp_path / name).read_bytes() for name in ("a.png", "b.png")] == [b"content", b"other"]


def test_what_is_too_large_is_not_fetched(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LARGEST_IMAGE_FILE", 6)
    memory.pipe("/a.png", b"content")
    with pytest.raises(InputError, match="has 7 bytes, at most 6 are read"):
        fetch("memory://a.png", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    "url",
    [
        "http://host:8080/a@b.png",
        "zip://a@b.png::s3://bucket/x@y.zip",
        "s3://b/design=.png?region=x&endpoint_override=h:1",
    ],
)
def test_urls_without_secrets_are_not_refused(url: str) -> None:
    remote.require_no_secret(url)


def test_what_its_store_gives_no_size_of_is_fetched_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LARGEST_IMAGE_FILE", 6)
    with pytest.raises(InputError, match="has more than the 6 bytes that are read"):
        remote.copy_bounded(io.BytesIO(b"content"), io.BytesIO(), "memory://a.png")


def test_objects_that_fail_in_any_way_are_taken_and_fail_alone(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/scans/1.2.840", b"content")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no base in common\nand more")

    monkeypatch.setattr(type(memory), "open", fail)
    assert [url for url, _ in find_remote("memory://scans")] == ["memory://scans/1.2.840"]
    with pytest.raises(InputError, match=r"cannot be fetched: no base in common$"):
        fetch("memory://scans/1.2.840", tmp_path / "a")


def test_without_the_extra_a_url_says_what_to_install(
    segment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = segment("s3://bucket/scans", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "needs the 'ray' extra" in result.output


def test_the_root_of_a_store_is_asked_for_once() -> None:
    assert open_place("file:///a/b.png").files is open_place("file:///c.png").files
    assert open_place("file:///a%20b/c.png").path == "/a b/c.png"
