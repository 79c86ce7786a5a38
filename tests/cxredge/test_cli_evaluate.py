"""``cxredge evaluate``: the figures of a tiny data set, on paper and in JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cxredge.cli import main


def save(mask: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Case a: Dice 2/3, TPR 1/2, inside the lung 1. Case b: Dice 1. The tiny model finds two boxes of 800 pixels."""
    folder = tmp_path / "made"
    left, right, lesion = (np.zeros((64, 64), bool) for _ in range(3))
    left[10:50, 5:25] = right[10:50, 35:55] = lesion[40:60, 5:25] = True
    for name in "ab":
        save(~(left | right), folder / "images" / f"{name}.png")
    save(left, folder / "masks" / "a.png")
    save(left | right, folder / "masks" / "b.png")
    save(lesion, folder / "infection" / "a.png")
    (folder / "manifest.csv").write_text("name,split\na,test\nb,val\n")
    return folder


def evaluate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)], env={"COLUMNS": "200"})


def test_figures_are_printed_by_data_set(dataset: Path, model_file: Path) -> None:
    result = evaluate(model_file, dataset)
    assert result.exit_code == 0, result.output
    row = next(line for line in result.stdout.splitlines() if "made" in line)
    assert "0.667 ± 0.000 (0.667)" in row
    assert "0.500 ± 0.000 (0.500)" in row
    assert "1.000 ± 0.000 (1.000)" in row
    assert "1 of 1" in row


def test_splits_can_be_chosen_and_missing_measures_are_dashes(dataset: Path, model_file: Path) -> None:
    (row,) = (line for line in evaluate(model_file, dataset, "--split", "val").stdout.splitlines() if "made" in line)
    assert "1.000" in row
    assert row.count("–") == 2
    row = next(
        line
        for line in evaluate(model_file, dataset, "--split", "val", "--split", "test").stdout.splitlines()
        if "made" in line
    )
    assert "0.833 ± 0.167 (0.667)" in row


def test_figures_are_written_as_json(dataset: Path, model_file: Path, tmp_path: Path) -> None:
    assert evaluate(model_file, dataset, "--json", tmp_path / "new" / "figures.json").exit_code == 0
    content = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert content["model"] == "darkness"
    (scores,) = content["datasets"]
    assert scores["dataset"] == "made"
    assert scores["dice"]["mean"] == scores["dice"]["min"] == 0.66667
    assert scores["tpr"]["mean"] == 0.5
    assert scores["tpr_inside_lung"]["mean"] == 1.0


def test_pictures_are_drawn_and_named(dataset: Path, model_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'evaluate'")
    folder = tmp_path / "pictures"
    result = evaluate(model_file, dataset, "--figures", folder)
    assert result.exit_code == 0, result.output
    drawn = sorted(folder.iterdir())
    assert [path.name for path in drawn] == ["bars.png", "cases-made-none.png"]
    assert {line for line in result.stdout.splitlines() if line.startswith(str(folder))} == set(map(str, drawn))


def test_pictures_without_the_extra_name_it(
    dataset: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cxredge.evaluation.figures", None)  # as where matplotlib is missing
    result = evaluate(model_file, dataset, "--figures", tmp_path / "pictures")
    assert result.exit_code == 1
    assert "pip install 'cxredge[evaluate]'" in result.stderr
    assert not (tmp_path / "pictures").exists()


def test_a_data_set_with_brackets_in_its_name_is_printed_as_it_is(dataset: Path, model_file: Path) -> None:
    renamed = dataset.rename(dataset.with_name("made[bold]"))
    assert "made[bold]" in evaluate(model_file, renamed).stdout


@pytest.mark.parametrize("wrong", ["model", "dataset", "split", "json", "image"])
def test_errors_are_one_line_and_exit_code_1(wrong: str, dataset: Path, model_file: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = [model_file, dataset]
    if wrong == "model":
        arguments[0] = tmp_path / "absent.onnx"
    elif wrong == "dataset":
        arguments[1] = tmp_path / "absent"
    elif wrong == "split":
        arguments += ["--split", "nothing"]
    elif wrong == "json":
        (tmp_path / "file").touch()
        arguments += ["--json", tmp_path / "file" / "figures.json"]
    else:
        (dataset / "images" / "a.png").write_bytes(b"garbage")
    result = evaluate(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit | None)
    (line,) = result.stderr.splitlines()
    assert line.startswith("cxredge: ")
    assert "Traceback" not in result.output


def test_wrong_usage_is_exit_code_2(model_file: Path) -> None:
    assert evaluate(model_file).exit_code == 2
    assert evaluate().exit_code == 2


def test_bundled_is_the_name_of_the_bundled_model(dataset: Path) -> None:
    assert evaluate("bundled", dataset).exit_code == 0


def test_shifts_are_scored_one_after_another(dataset: Path, model_file: Path) -> None:
    result = evaluate(model_file, dataset, "--shift", "harsh,none", "--published")
    rows = [line for line in result.stdout.splitlines() if "made" in line and "±" in line]
    assert ["none" in rows[0], "harsh" in rows[1]] == [True, True]
    assert "lungVAE" in result.stdout


def test_an_unknown_shift_is_wrong_usage(dataset: Path, model_file: Path) -> None:
    result = evaluate(model_file, dataset, "--shift", "none,brutal")
    assert result.exit_code == 2
    assert "brutal" in result.stderr


def test_an_exported_model_has_no_indirect_path(dataset: Path, model_file: Path) -> None:
    result = evaluate(model_file, dataset, "--path", "indirect")
    assert result.exit_code == 1
    assert "direct path only" in result.stderr


def test_masks_of_a_peer_are_scored_where_it_has_them(dataset: Path, tmp_path: Path) -> None:
    right = np.zeros((64, 64), bool)
    right[10:50, 35:55] = True
    save(right, dataset / "peer" / "b.png")
    figures = tmp_path / "peer.json"
    result = evaluate("masks:peer", dataset, "--split", "test", "--split", "val", "--json", figures)
    assert result.exit_code == 0, result.output
    content = json.loads(figures.read_text())
    assert content["model"] == "peer"
    (scored,) = content["datasets"]
    assert (scored["dice"]["count"], scored["dice"]["mean"]) == (1, pytest.approx(2 / 3, abs=1e-4))


def test_a_model_can_be_scored_on_the_rows_of_a_peer(dataset: Path, model_file: Path, tmp_path: Path) -> None:
    save(np.ones((64, 64), bool), dataset / "peer" / "b.png")
    figures = tmp_path / "ours.json"
    evaluate(model_file, dataset, "--where", "peer", "--split", "test", "--split", "val", "--json", figures)
    (scored,) = json.loads(figures.read_text())["datasets"]
    assert (scored["dice"]["count"], scored["dice"]["mean"]) == (1, 1.0)


def test_masks_that_do_not_fit_are_refused(dataset: Path) -> None:
    save(np.ones((32, 64), bool), dataset / "peer" / "b.png")
    result = evaluate("masks:peer", dataset, "--split", "val")
    assert result.exit_code == 1
    assert "has shape (32, 64), its radiograph (64, 64)" in result.output
    result = evaluate("masks:nobody", dataset)
    assert result.exit_code == 1
    assert "no row has a file in nobody/" in result.output
    assert evaluate("masks:peer", dataset, "--shift", "weak").exit_code == 2
