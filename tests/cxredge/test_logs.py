"""Logs: a line an image, text or JSON, without paths; nothing at all unless asked."""

from __future__ import annotations

import csv
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cxredge.cli.display import Pace, describe, span
from cxredge.logs import EventFormatter, hide_logs, log_event, log_image, show_logs
from cxredge.runs.table import cell, flattened, write_table

PROGRAM = Path(sys.executable).parent / "cxredge"


def run(folder: Path, output: Path, model: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, "segment", folder, "-o", output, "--model", model, *options]
    return subprocess.run(command, capture_output=True, text=True)


def test_json_logs_are_objects_a_line_with_durations_and_flags_and_without_paths(
    mixed_folder: Path, tmp_path: Path, model_file: Path
) -> None:
    done = run(mixed_folder, tmp_path / "out", model_file, "--log-format", "json")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    events = [line for line in lines if line["logger"] == "cxredge"]
    assert [event["event"] for event in events] == ["run_started", *["image"] * 8, "run_ended"]
    images = events[1:-1]
    assert [event["line"] for event in images] == list(range(1, 9))
    assert [event["level"] for event in images] == ["error"] * 5 + ["info"] * 3
    assert all(set(event["milliseconds"]) >= {"read", "inference", "write"} for event in images[5:])
    assert events[0]["images"] == 8
    assert events[-1]["failed"] == 5
    assert all(event["time"].endswith("+00:00") for event in lines)
    for secret in ("Secret", "ID-4711", str(mixed_folder), "g1", "b1-trunc"):
        assert secret not in done.stderr


def test_text_logs_carry_the_same(mixed_folder: Path, tmp_path: Path, model_file: Path) -> None:
    done = run(mixed_folder, tmp_path / "out", model_file, "--log-format", "text", "--log-level", "error")
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    assert all("ERROR" in line and "image line=" in line and "status=failed" in line for line in lines)


def test_a_stop_is_logged_with_its_cause(one_image_folder: Path, tmp_path: Path, model_file: Path) -> None:
    (one_image_folder / "sub").mkdir()
    (one_image_folder / "chest.png").rename(one_image_folder / "sub" / "chest.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file where a folder should be")
    done = run(one_image_folder, tmp_path / "out", model_file, "--log-format", "json")
    assert done.returncode == 4
    event = json.loads(done.stderr.splitlines()[-1])
    assert event["event"] == "run_stopped"
    assert (event["done"], event["images"]) == (0, 1)
    assert event["cause"]
    assert str(tmp_path) not in done.stderr


def test_the_library_is_quiet() -> None:
    program = "import cxredge, cxredge.logs as logs; logs.log_event('something', 40)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_a_host_gets_the_records_by_the_usual_means(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cxredge"):
        log_event("something", amount=3)
    assert caplog.records[0].cxredge_fields == {"amount": 3}


def test_showing_and_hiding_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("cxredge")
    before = (list(logger.handlers), logger.level, logger.propagate)
    handler = show_logs("json", "warning")
    log_event("unseen")
    log_image(7, {"status": "warning", "flags": ["one_lung"], "milliseconds": {"read": 1.5}, "input": "/x/secret"})
    hide_logs(handler)
    assert (list(logger.handlers), logger.level, logger.propagate) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["flags"] == ["one_lung"]
    assert "secret" not in line


def test_a_record_is_one_line_whatever_is_in_it() -> None:
    record = logging.LogRecord("cxredge", logging.INFO, "", 1, "two\nlines", (), None)
    for kind in ("text", "json"):
        assert "\n" not in EventFormatter(kind).format(record)


# The progress


def test_pace_tells_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace = Pace(1000)
    now, pace.done = 120.0, 100
    assert pace.rate == pytest.approx(5)
    assert pace.seconds_left == pytest.approx(180)
    assert pace.describe() == "100/1000 done, 5.0 images/s, 0:03:00 left"
    assert not pace.is_due()
    now = 161.0
    assert pace.is_due()
    assert not pace.is_due()
    assert span(3725) == "1:02:05"


def test_a_line_never_commands_a_terminal() -> None:
    line: dict[str, Any] = {"status": "failed", "input": "a\x1b[31m.png", "error": "is bad"}
    assert "\x1b" not in describe(line)


# The table


def test_the_table_has_a_column_for_every_field(tmp_path: Path) -> None:
    lines = [
        {"input": "a", "flags": ["x", "y"], "milliseconds": {}},
        {"input": "=cmd()", "flags": [], "milliseconds": {"read": 1.5}},
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_table(tmp_path)
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"input": "a", "flags": "x;y", "milliseconds.read": ""},
        {"input": "'=cmd()", "flags": "", "milliseconds.read": "1.5"},
    ]


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx"])
def test_no_spreadsheet_runs_a_text(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert cell(-1.5) == -1.5
    assert flattened({"a": {"b": {"c": text}}}) == {"a.b.c": f"'{text}"}
