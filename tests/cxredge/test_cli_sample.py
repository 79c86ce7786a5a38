"""``cxredge sample``: files for a newcomer, none of theirs overwritten."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from cxredge import read_radiograph
from cxredge.cli import main
from cxredge.sample import SAMPLES


def test_sample_writes_radiographs_and_prints_their_paths(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["sample", str(tmp_path / "samples")])
    assert result.exit_code == 0
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert sorted(paths) == sorted((tmp_path / "samples").iterdir())
    assert {path.suffix for path in paths} == {".png", ".dcm"}
    for path in paths:
        assert min(read_radiograph(path).shape) >= 256


def test_sample_refuses_to_overwrite(tmp_path: Path) -> None:
    (tmp_path / min(SAMPLES)).write_bytes(b"mine")
    result = CliRunner().invoke(main, ["sample", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("cxredge: ")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_sample_into_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, ["sample", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_sample_without_a_folder_is_wrong_usage() -> None:
    assert CliRunner().invoke(main, ["sample"]).exit_code == 2
