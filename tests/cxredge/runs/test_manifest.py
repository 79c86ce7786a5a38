"""Parquet manifests: paths and URLs in a column, and what is wrong with those that cannot be used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'cxredge[ray]'")

import pyarrow as pa
from pyarrow import parquet

from cxredge.cli import main
from cxredge.errors import InputError
from cxredge.runs.discovery import find_radiographs
from cxredge.runs.manifest import located


def manifest(folder: Path, **columns: Any) -> Path:
    folder.mkdir(exist_ok=True)
    parquet.write_table(pa.table(columns), folder / "list.parquet")
    return folder / "list.parquet"


def found(path: Path | str) -> list[tuple[str, str]]:
    return [(target.label, target.stem.as_posix()) for target in find_radiographs([path], Path("out")).targets]


def test_paths_are_relative_to_the_manifest_and_name_the_results(tmp_path: Path) -> None:
    paths = ["a.png", "sub/b.dcm", str(tmp_path / "m" / "c.npy"), "/elsewhere/d.png", "s3://bucket/scans/e.png"]
    assert found(manifest(tmp_path / "m", path=paths)) == [
        (str(tmp_path / "m" / "a.png"), "a"),
        (str(tmp_path / "m" / "sub" / "b.dcm"), "sub/b"),
        (str(tmp_path / "m" / "c.npy"), "c"),
        ("/elsewhere/d.png", "elsewhere/d"),
        ("s3://bucket/scans/e.png", "scans/e"),
    ]


def test_a_manifest_at_a_url_lists_what_is_beside_it(tmp_path: Path) -> None:
    url = manifest(tmp_path, path=["a.png", "sub/b.png"]).as_uri()
    folder = tmp_path.as_uri()
    assert found(url) == [(f"{folder}/a.png", "a"), (f"{folder}/sub/b.png", "sub/b")]


def test_paths_beside_a_manifest_at_a_url_keep_its_parameters() -> None:
    url = "s3://bucket/scans/list.parquet?endpoint_override=http://host/x"
    assert located("sub/50% b.png", url) == "s3://bucket/scans/sub/50%25%20b.png?endpoint_override=http://host/x"
    assert located("a.png", "memory://list.parquet") == "memory://a.png"


def test_a_column_says_what_results_are_called(tmp_path: Path) -> None:
    path = manifest(tmp_path, path=["a.png", "b.png", "c.png"], name=["one", None, "../../three"])
    stems = [stem for _, stem in found(path)]
    assert stems[:2] == ["one", "b"]
    assert ".." not in stems[2].split("/")


def test_dictionaries_of_text_are_text(tmp_path: Path) -> None:
    assert found(manifest(tmp_path, path=pa.array(["a.png"]).dictionary_encode())) == [(str(tmp_path / "a.png"), "a")]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"file": ["a.png"]}, "has no column 'path'; there are file"),
        ({"path": [1]}, "its column 'path' holds int64, not text"),
        ({"path": ["a.png", None]}, "row 2 has no path"),
        ({"path": ["a\0.png"]}, "row 1 has a path with a NUL"),
        ({"path": ["a.png", "b.png"], "name": ["a", "."]}, "row 2 names no result"),
        ({"path": ["a.png"], "name": ["/"]}, "row 1 names no result"),
        ({"path": ["a.png", "./a.png"], "name": ["a", "b"]}, "row 2 gives another name to a path"),
        ({"path": ["s3://bucket/a.png?token=x"]}, "row 1 cannot be used: a URL with a key, token or signature"),
        ({"path": ["https://[x/a.png"]}, "row 1 is no valid URL"),
        ({"path": ["a.png"], "name": [1.5]}, "its column 'name' holds double, not text"),
        ({"path": ["x/a.png", "y/a.png"], "name": ["same", "SAME"]}, "would have results of the same name"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        found(manifest(tmp_path, **columns))


@pytest.mark.parametrize("content", [None, b"", b"PAR1 this is no Parquet PAR1"])
def test_what_is_not_parquet_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "list.parquet"
    if content is not None:
        path.write_bytes(content)
    for source in (path, path.as_uri()):
        with pytest.raises(InputError, match=r"list\.parquet: cannot be read as Parquet"):
            found(source)


def test_a_manifest_with_too_many_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxredge.runs.manifest.MOST_LISTED", 2)
    assert len(found(manifest(tmp_path / "some", path=["a.png", "b.png"]))) == 2
    with pytest.raises(InputError, match="has 3 rows, at most 2 are read"):
        found(manifest(tmp_path / "many", path=["a.png", "b.png", "c.png"]))


def test_a_folder_with_the_name_of_a_manifest_is_a_folder(tmp_path: Path, chest: np.ndarray) -> None:
    (tmp_path / "scans.parquet").mkdir()
    Image.fromarray(chest).save(tmp_path / "scans.parquet" / "a.png")
    assert [stem for _, stem in found(tmp_path / "scans.parquet")] == ["a"]


def test_rows_whose_files_are_missing_are_failed_lines(tmp_path: Path, chest: np.ndarray, model_file: Path) -> None:
    path = manifest(tmp_path / "m", path=["a.png", "absent.png"])
    Image.fromarray(chest).save(path.parent / "a.png")
    arguments = ["segment", path, "-o", tmp_path / "out", "--model", model_file]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 3
    assert (tmp_path / "out" / "a.mask.png").exists()


def test_the_page_makes_a_manifest(tmp_path: Path, mixed_folder: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "cluster.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- snippet: manifest -->\n```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "make.py").write_text(code, encoding="utf-8")
    subprocess.run([sys.executable, tmp_path / "make.py", mixed_folder], check=True)
    assert found(mixed_folder / "list.parquet") == [
        (str(mixed_folder / "b2-text.dcm"), "study-000000"),
        (str(mixed_folder / "g3.dcm"), "study-000001"),
    ]
