"""What an actor does on its node, and when it refuses: called here without Ray."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cxredge import Segmenter
from cxredge.algorithm import Algorithm
from cxredge.cluster.actor import (
    ENTRIES,
    MOST_ATTEMPTS,
    STOP,
    TARGETS,
    Found,
    ModelOrder,
    Order,
    SegmentingActor,
    attempt,
    attempts_of,
    marked,
    survey,
    target_from,
    target_text,
)
from cxredge.errors import ClusterError
from cxredge.pipeline import CORES_VARIABLE, available_cores
from cxredge.runs.journal import as_entry
from cxredge.runs.results import Target
from cxredge.runs.writer import ResultWriter

MakeOrder = Callable[..., Order]


@pytest.fixture(autouse=True)
def _process(monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor changes its process, which here is that of the tests."""
    monkeypatch.setenv(CORES_VARIABLE, "1")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "pytest", raising=False)


@pytest.fixture
def make_order(tmp_path: Path, model_file: Path, segmenter: Segmenter) -> Iterator[MakeOrder]:
    """``make_order(**fields)`` for an output folder that has this run's mark."""
    model = ModelOrder(str(model_file), "onnxruntime", build=False, cores=1)
    found = survey(model)
    assert isinstance(found, Found)
    write = ResultWriter(("png",), Algorithm.of(segmenter.contract, found.digest), overlay=False)

    def make(**fields: Any) -> Order:
        order = Order(model, found, str(tmp_path / "out"), mark, write, 1, None, 60.0, keep_identity=False)
        return replace(order, **fields)

    with marked(tmp_path / "out") as mark:
        yield make


@pytest.fixture
def actor(make_order: MakeOrder) -> Iterator[SegmentingActor]:
    started = SegmentingActor(make_order())
    yield started
    started._opened.close()


def block(*targets: Target) -> dict[str, list[str]]:
    return {TARGETS: [target_text(target) for target in targets]}


def stopped(actor: SegmentingActor) -> str:
    (answer,) = actor(block(Target(Path("a.png"), Path("a"))))[ENTRIES]
    return str(json.loads(answer)[STOP])


def test_an_actor_gives_an_entry_for_every_target(actor: SegmentingActor, mixed_folder: Path, tmp_path: Path) -> None:
    names = ["g1.png", "b2-text.dcm", "g3.dcm"]
    answers = actor(block(*(Target(mixed_folder / name, Path(name)) for name in names)))[ENTRIES]
    entries = [as_entry(json.loads(answer)) for answer in answers]
    assert [(entry.stem, entry.failed) for entry in entries] == list(zip(names, (False, True, False), strict=True))
    assert [list(entry.files) for entry in entries] == [["g1.png.mask.png"], [], ["g3.dcm.mask.png"]]
    assert "Secret" not in "".join(answers)
    assert "4711" not in "".join(answers)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["g1.png.mask.png", "g3.dcm.mask.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="such names are of POSIX")
def test_names_that_are_no_text_pass() -> None:
    target = Target(Path(os.fsdecode(b"/scans/\xff\xfe.png")), Path("a"), None)
    assert target_from(target_text(target)) == target
    target_text(target).encode("ascii")


def test_an_actor_uses_the_cores_that_it_has(actor: SegmentingActor) -> None:
    assert available_cores() == 1


@pytest.mark.parametrize("field", ["version", "digest", "backend"])
def test_a_node_that_would_give_other_results_is_refused(make_order: MakeOrder, field: str) -> None:
    order = make_order()
    other = SegmentingActor(replace(order, expected=replace(order.expected, **{field: "another"})))
    assert f"has another {'model' if field == 'digest' else field} than" in stopped(other)


def test_a_node_that_does_not_see_the_output_folder_is_refused(make_order: MakeOrder, tmp_path: Path) -> None:
    assert "does not see the output folder" in stopped(SegmentingActor(make_order(output=str(tmp_path / "elsewhere"))))
    assert not (tmp_path / "elsewhere").exists()


def test_a_node_with_an_output_folder_of_its_own_is_refused(make_order: MakeOrder, tmp_path: Path) -> None:
    with marked(tmp_path / "own"):
        assert "does not see the output folder" in stopped(SegmentingActor(make_order(output=str(tmp_path / "own"))))
    assert not attempts_of(tmp_path / "own").exists()


def test_an_actor_that_ends_early_removes_nothing(
    actor: SegmentingActor, one_image_folder: Path, tmp_path: Path
) -> None:
    scan = one_image_folder / "chest.png"
    newer = tmp_path / "out" / "b.mask.png"
    newer.write_bytes(b"of a newer run")
    entries = actor._entries([Target(scan, Path("a")), Target(scan, Path("b"))])
    next(entries)
    entries.close()
    assert newer.exists()


def test_a_node_without_the_model_says_so(tmp_path: Path) -> None:
    answer = survey(ModelOrder(str(tmp_path / "absent.onnx"), "auto", build=False, cores=1))
    assert "there is no such model file" in str(answer)


def test_a_result_that_cannot_be_written_stops_the_run_and_keeps_what_is_done(
    actor: SegmentingActor, one_image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "b").write_text("is no folder")
    scan = one_image_folder / "chest.png"
    first, last = actor(block(Target(scan, Path("a")), Target(scan, Path("b/c"))))[ENTRIES]
    assert json.loads(first)["stem"] == "a"
    assert "cannot be written" in json.loads(last)[STOP]


def test_a_block_that_is_lost_again_and_again_stops_the_run(tmp_path: Path) -> None:
    attempts_of(tmp_path).parent.mkdir()
    targets = [Target(Path("/scans/a.png"), Path("a")), Target(Path("/scans/b.png"), Path("b"))]
    for _ in range(MOST_ATTEMPTS):
        attempt(tmp_path, targets).__enter__()  # and the actor is gone
    with pytest.raises(ClusterError, match=r"5 actors were lost with the inputs from /scans/a\.png to /scans/b\.png"):
        attempt(tmp_path, targets).__enter__()
    with attempt(tmp_path, targets[1:]):
        assert len(list(attempts_of(tmp_path).iterdir())) == 2
    assert len(list(attempts_of(tmp_path).iterdir())) == 1
