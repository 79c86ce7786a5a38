"""The public class: any source in, a mask of its size out, alone, streamed and from many threads."""

from __future__ import annotations

import itertools
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from cxredge import Radiograph, Segmentation, Segmenter
from cxredge.backends import StageTimed
from cxredge.errors import BackendError, InputError, ModelError
from cxredge.pipeline import available_cores
from cxredge.segmenter import calls_at_once

from .conftest import contract_for

STAGES = {"read", "preprocess", "inference", "postprocess"}


@pytest.fixture
def chest_png(tmp_path: Path, chest: np.ndarray) -> Path:
    path = tmp_path / "chest.png"
    Image.fromarray(chest).save(path)
    return path


def squares(count: int) -> np.ndarray:
    """``(64, 64)`` bright image with ``count`` dark squares."""
    pixels = np.full((64, 64), 200, np.uint8)
    pixels[0, 0] = 255
    for number in range(count):
        pixels[10:50, 4 + 20 * number : 18 + 20 * number] = 10
    return pixels


def test_every_kind_of_source_gives_the_same_mask(
    chest_png: Path, chest: np.ndarray, make_dicom: Any, segmenter: Segmenter
) -> None:
    expected = segmenter(chest).mask
    for source in (chest_png, str(chest_png), Radiograph(chest), make_dicom(chest, 12)):
        np.testing.assert_array_equal(segmenter(source).mask, expected)


@pytest.mark.parametrize("source", [None, 3, [[1, 2], [3, 4]], b"bytes", {"pixels": 1}])
def test_anything_else_is_a_type_error(source: Any, segmenter: Segmenter) -> None:
    with pytest.raises(TypeError, match=type(source).__name__):
        segmenter(source)


def test_a_dataset_without_an_image_is_an_input_error(segmenter: Segmenter) -> None:
    with pytest.raises(InputError, match="no image"):
        segmenter(Dataset())


def test_arrays_are_checked_like_files(segmenter: Segmenter) -> None:
    for array in (np.zeros((64, 64, 3)), np.zeros((64, 64), bool), np.full((64, 64), np.nan), np.zeros((64, 64))):
        with pytest.raises(InputError):
            segmenter(array)


def test_the_mask_is_bool_of_the_source_size_and_lies_on_the_dark_lungs(
    chest: np.ndarray, segmenter: Segmenter
) -> None:
    result = segmenter(chest)
    assert isinstance(result, Segmentation)
    assert result.mask.dtype == bool
    assert result.mask.shape == chest.shape
    assert (result.mask != (chest < 1000)).mean() < 0.03
    assert result.logits.shape == (64, 64)
    assert result.logits.dtype == np.float32
    assert result.radiograph.shape == chest.shape


def test_area_is_the_share_of_the_image_and_square_millimetres_where_spacing_is_known(
    chest: np.ndarray, segmenter: Segmenter
) -> None:
    unknown = segmenter(chest)
    assert unknown.lung_area_fraction == pytest.approx(unknown.mask.sum() / chest.size)
    assert unknown.lung_area_mm2 is None
    known = segmenter(Radiograph(chest, spacing=(0.5, 0.2)))
    assert known.lung_area_mm2 == pytest.approx(known.mask.sum() * 0.1)


@pytest.mark.parametrize(("count", "flags"), [(1, ("one_lung",)), (2, ()), (3, ())])
def test_flags_count_the_lungs(count: int, flags: tuple[str, ...], segmenter: Segmenter) -> None:
    assert segmenter(squares(count)).flags == flags


def test_an_image_without_a_dark_region_has_no_lung_and_no_area(segmenter: Segmenter) -> None:
    pixels = np.full((640, 640), 200, np.uint8)
    pixels[300, 300] = 0  # one dead pixel vanishes in the average
    result = segmenter(pixels)
    assert result.flags == ("no_lung",)
    assert result.lung_area_fraction == 0
    assert result.mask.shape == (640, 640)


def test_only_the_two_largest_components_are_in_the_mask(segmenter: Segmenter) -> None:
    pixels = squares(2)
    pixels[56:60, 30:33] = 10
    np.testing.assert_array_equal(segmenter(pixels).mask, squares(2) < 100)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("value_range", [None, (50, 3000)])
def test_arrays_are_copied_once_to_single_precision(dtype: Any, value_range: Any, segmenter: Segmenter) -> None:
    pixels = (np.arange(1_000_000) % 4093).reshape(1000, 1000).astype(dtype)
    pixels.setflags(write=False)
    radiograph = Radiograph(pixels, value_range=(5, 200) if value_range and dtype == np.uint8 else value_range)
    segmenter.prepare(radiograph)  # what is imported for the first does not count
    tracemalloc.start()
    for source in (pixels, radiograph):
        tracemalloc.reset_peak()
        assert np.shares_memory(segmenter.prepare(source).radiograph.pixels, pixels)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * 4 * pixels.size
    tracemalloc.stop()


def test_arrays_need_not_be_contiguous(chest: np.ndarray, segmenter: Segmenter) -> None:
    wide = np.zeros((chest.shape[0], 3 * chest.shape[1]), np.uint16)
    wide[:, 1::3] = chest
    for view in (wide[:, 1::3], np.asfortranarray(chest), chest[::-1][::-1], chest.astype(">u2")):
        np.testing.assert_array_equal(segmenter(view).mask, segmenter(chest).mask)


def test_a_host_that_makes_errors_of_rounding_gets_none(segmenter: Segmenter) -> None:
    tiny = np.full((64, 64), 1e20)
    tiny[5:50, 5:50] = np.linspace(0, 1e-42, 45)
    with np.errstate(all="raise"):
        assert segmenter(tiny).flags == ("one_lung",)


def test_milliseconds_are_given_for_every_stage(chest_png: Path, segmenter: Segmenter) -> None:
    times = segmenter(chest_png).milliseconds
    assert set(times) == STAGES
    assert all(spent >= 0 for spent in times.values())


def test_inference_time_of_a_batch_is_shared_among_its_radiographs(segmenter: Segmenter) -> None:
    batch = [segmenter.prepare(squares(2))] * 16
    started = time.perf_counter()
    inferred = segmenter.infer(batch)
    spent = 1e3 * (time.perf_counter() - started)
    assert 0 < sum(one.milliseconds for one in inferred) <= spent


# Streams


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 2), (50, None)])
def test_a_stream_gives_what_calls_give_in_order(batch_size: int, workers: int | None, segmenter: Segmenter) -> None:
    sources = [squares(count % 3) + np.uint8(count) for count in range(10)]
    results = list(segmenter.stream(sources, batch_size=batch_size, workers=workers))
    assert len(results) == 10
    for source, result in zip(sources, results, strict=True):
        np.testing.assert_array_equal(result.radiograph.pixels, source)
        np.testing.assert_array_equal(result.mask, segmenter(source).mask)


def test_a_stream_takes_its_sources_lazily(segmenter: Segmenter) -> None:
    taken = 0

    def sources() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield squares(2)

    stream = segmenter.stream(sources(), workers=2)
    next(stream)
    assert taken < 50
    stream.close()


def test_a_stream_raises_the_first_error(segmenter: Segmenter, tmp_path: Path) -> None:
    stream = segmenter.stream([squares(2), tmp_path / "absent.png", squares(2)])
    assert next(stream).flags == ()
    with pytest.raises(InputError, match="No such file"):
        next(stream)


def test_a_stream_returns_errors_in_their_place_if_asked(segmenter: Segmenter, tmp_path: Path) -> None:
    sources = [squares(2), tmp_path / "absent.png", np.zeros((64, 64)), squares(1)]
    kinds = [type(result) for result in segmenter.stream(sources, return_errors=True, batch_size=2)]
    assert kinds == [Segmentation, InputError, InputError, Segmentation]


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": 0}, {"workers": -1}])
def test_a_stream_refuses_sizes_below_one_at_once(wrong: dict[str, int], segmenter: Segmenter) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        segmenter.stream([squares(2)], **wrong)


def test_a_stream_leaves_no_threads(segmenter: Segmenter) -> None:
    stream = segmenter.stream(squares(2) for _ in range(100))
    next(stream)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("cxredge-")]


def test_the_caller_may_put_its_own_stages_at_both_ends(segmenter: Segmenter) -> None:
    outcomes = segmenter.process(
        [1, 2],
        lambda count: segmenter.prepare(squares(count)),
        lambda count, prepared, inferred: (count, segmenter.finish(prepared, inferred).flags),
    )
    assert list(outcomes) == [(1, ("one_lung",)), (2, ())]


# Threads and life time


def test_eight_threads_get_the_same_masks_as_one(chest: np.ndarray, segmenter: Segmenter) -> None:
    sources = [squares(1), squares(2), chest, np.rot90(chest)]
    expected = [segmenter(source).mask for source in sources]
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda number: (number % 4, segmenter(sources[number % 4]).mask), range(64))
        for number, mask in results:
            np.testing.assert_array_equal(mask, expected[number])


def test_it_may_be_used_from_inside_its_own_streams(segmenter: Segmenter) -> None:
    def sources() -> Iterator[np.ndarray]:
        for count in (1, 2):
            assert segmenter(squares(count)).flags == (("one_lung",) if count == 1 else ())
            yield squares(count)

    found = []
    for outer in segmenter.stream(sources(), workers=1):
        inner = [one.flags for one in segmenter.stream([squares(1)] * 3, workers=1)]
        found.append((outer.flags, inner, segmenter(squares(2)).flags))
    assert found == [((*one,), [("one_lung",)] * 3, ()) for one in (["one_lung"], [])]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_warming_up_takes_what_is_slow_at_first(backend: Any, model_file: Path) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    with Segmenter.load(model_file, backend=backend) as segmenter:
        segmenter.warm_up()
        segmenter.warm_up(batch_size=3)
        assert segmenter(squares(2)).flags == ()
        with pytest.raises(ValueError, match="at least 1"):
            segmenter.warm_up(batch_size=0)
    with pytest.raises(BackendError, match="closed"):
        segmenter.warm_up()


class Backstage:
    """A backend that warms up by itself, and tells what it ran."""

    name = "backstage"
    contract = contract_for()
    lanes = 2

    def __init__(self) -> None:
        self.ran: list[tuple[str, int]] = []
        self.closed = 0

    def run(self, inputs: np.ndarray) -> np.ndarray:
        self.ran.append(("run", len(inputs)))
        return -inputs[:, 0]

    def warm_up(self, batch: int) -> None:
        self.ran.append(("warm up", batch))

    def close(self) -> None:
        self.closed += 1


def test_a_backend_with_several_lanes_warms_all_of_them_itself() -> None:
    backend = Backstage()
    with Segmenter(backend) as segmenter:
        segmenter.warm_up(batch_size=4)
    assert sorted(one for one in backend.ran if one[0] == "warm up") == [("warm up", 1), ("warm up", 4)]
    assert ("run", 4) in backend.ran


def test_a_closed_segmenter_refuses_to_work_and_closes_again_quietly(model_file: Path) -> None:
    segmenter = Segmenter.load(model_file)
    segmenter.submit(squares(2)).result(10)
    segmenter.close()
    for use in (segmenter, segmenter.submit, lambda source: next(iter(segmenter.stream([source])))):
        with pytest.raises(BackendError, match="is closed"):
            use(squares(2))
    segmenter.close()


def test_closing_while_threads_call_lets_calls_finish_or_tells_them(model_file: Path, chest: np.ndarray) -> None:
    segmenter = Segmenter.load(model_file, threads=1)
    expected = segmenter(chest).mask
    outcomes: list[str] = []
    started = threading.Barrier(17)

    def work() -> None:
        started.wait()
        while True:
            try:
                outcomes.append("right" if np.array_equal(segmenter(chest).mask, expected) else "wrong")
            except BackendError as error:
                outcomes.append(str(error))
                return

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    started.wait()
    time.sleep(0.1)
    segmenter.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert set(outcomes) == {"right", "the segmenter is closed"}
    assert outcomes.count("the segmenter is closed") == 16


@pytest.mark.parametrize("return_errors", [False, True])
def test_closing_ends_a_stream_that_somebody_is_in_the_middle_of(model_file: Path, return_errors: bool) -> None:
    segmenter = Segmenter.load(model_file, threads=1)
    stream = segmenter.stream((squares(2) for _ in range(1000)), workers=2, return_errors=return_errors)
    finished = segmenter.stream([squares(1)])
    assert (len(list(finished)), next(stream).flags) == (1, ())
    segmenter.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("cxredge-")]
    with pytest.raises(BackendError, match="the segmenter is closed"):
        list(stream)
    assert list(finished) == []


def test_closing_ends_streams_that_threads_wait_for(model_file: Path) -> None:
    segmenter = Segmenter.load(model_file, threads=1)
    told: list[str] = []
    started = threading.Barrier(9)

    def work() -> None:
        started.wait()
        try:
            for _ in segmenter.stream(itertools.repeat(squares(2)), workers=1):
                pass
        except BackendError as error:
            told.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    started.wait()
    time.sleep(0.1)
    segmenter.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert len(told) == 8
    assert all("is closed" in one for one in told)
    assert not [t for t in threading.enumerate() if t.name.startswith("cxredge-")]


def test_memory_does_not_grow_with_the_number_of_threads(model_file: Path, chest: np.ndarray) -> None:
    pixels = np.kron(chest, np.ones((12, 12), np.uint16))
    with Segmenter.load(model_file, threads=1) as segmenter:
        tracemalloc.start()
        segmenter(pixels)
        one = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(lambda _: segmenter(pixels).flags, range(128)))
        assert tracemalloc.get_traced_memory()[1] < 1.5 * len(segmenter._calls._idle) * one
        tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_to_load_its_own(model_file: Path) -> None:
    with Segmenter.load(model_file, threads=2) as segmenter:
        assert segmenter.submit(squares(2)).result(10).flags == ()
        with segmenter._calls.lane():  # a call that is under way in the parent never ends in the child
            child = os.fork()
            if child == 0:
                told = 0
                for use in (segmenter, segmenter.submit, lambda source: next(iter(segmenter.stream([source])))):
                    try:
                        use(squares(2))
                    except BackendError as error:
                        told += "another process" in str(error)
                segmenter.close()
                os._exit(told)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        assert segmenter(squares(2)).flags == ()


def test_not_more_calls_run_at_once_than_keep_the_machine_busy(model_file: Path, chest: np.ndarray) -> None:
    with Segmenter.load(model_file, threads=1) as segmenter:
        most = len(segmenter._calls._idle)
        inside, peak, lock = 0, 0, threading.Lock()
        prepare = segmenter.prepare

        def counted(source: Any) -> Any:
            nonlocal inside, peak
            with lock:
                inside += 1
                peak = max(peak, inside)
            time.sleep(0.002)
            try:
                return prepare(source)
            finally:
                with lock:
                    inside -= 1

        segmenter.prepare = counted
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(segmenter, [chest] * 256))
        assert 1 < peak <= most == available_cores() + 1


class TimedDevice:
    """A backend on a device: three calls at once, the parts of each timed."""

    lanes = 3

    def timed_run(self, inputs: Any) -> Any:
        raise AssertionError("nothing is run here")

    def device_bytes(self) -> int:
        return 0


def test_a_device_takes_its_lanes_besides_the_cores() -> None:
    assert isinstance(TimedDevice(), StageTimed)
    assert calls_at_once(TimedDevice()) == available_cores() + 3


def test_a_with_block_closes(model_file: Path) -> None:
    with Segmenter.load(str(model_file), backend="onnxruntime") as segmenter:
        assert segmenter.backend == "onnxruntime"
        assert segmenter.contract.name == "darkness"
    with pytest.raises(BackendError):
        segmenter(squares(2))


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        Segmenter.load(tmp_path / "absent.onnx")
