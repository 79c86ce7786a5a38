"""Several evaluations become one table, with the paper's beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cxredge.cli import main


def compare(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def measured(mean: float, count: int = 4) -> dict[str, float]:
    return {"mean": mean, "count": count, "sd": 0.1, "min": 0.0, "max": 1.0}


def write(path: Path, *datasets: dict[str, object]) -> Path:
    path.write_text(json.dumps({"model": "m", "datasets": datasets}))
    return path


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return write(
        tmp_path / "ours.json",
        {"dataset": "nlm", "shift": "none", "dice": measured(0.9554)},
        {"dataset": "nlm", "shift": "harsh", "dice": measured(1.0)},
        {"dataset": "covid", "shift": "none", "dice": measured(0.9, 3), "tpr": measured(0.8, 2)},
    )


def test_a_row_a_result_and_a_column_a_data_set_and_measure(ours: Path) -> None:
    result = compare(ours)
    assert result.exit_code == 0, result.output
    head, rule, row = result.stdout.strip().splitlines()
    assert cells(head) == ["model", "nlm Dice (4)", "covid Dice (3)", "covid TPR (2)"]
    assert set(rule) == set("|- ")
    assert cells(row) == ["ours", ".955/–/1.000", ".900/–/–", ".800/–/–"]


def test_results_can_be_named_and_what_one_lacks_is_a_dash(ours: Path, tmp_path: Path) -> None:
    peer = write(tmp_path / "peer.json", {"dataset": "covid", "shift": "none", "tpr": measured(0.5, 9)})
    *_, row = compare(ours, f"Peer = one={peer}").stdout.strip().splitlines()
    assert cells(row) == ["Peer = one", "–", "–", ".500/–/–"]


def test_a_count_is_told_only_where_all_rows_share_it(ours: Path, tmp_path: Path) -> None:
    peer = write(tmp_path / "peer.json", {"dataset": "nlm", "shift": "none", "dice": measured(0.5, 9)})
    assert "nlm Dice |" in compare(ours, peer).stdout
    assert "covid Dice (3) |" in compare(ours, peer).stdout


def test_the_published_figures_stand_in_a_table_of_their_own(ours: Path) -> None:
    lines = compare(ours, "--published").stdout.splitlines()
    assert "| Proposed + ℓ_self | .91/.90/.89 | .90/.89/.86 |" in lines
    assert "| lungVAE | .94/.93/.60 | .90/.61/.10 |" in lines


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"datasets": [1]}', '{"datasets": [{"shift": "none", "dice": {}}]}'])
def test_another_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    result = compare(file)
    assert result.exit_code == 1
    assert "other.json: is not a file of 'cxredge evaluate --json'" in result.stderr


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert compare(tmp_path / "none.json").exit_code == 1
