"""The seam through the real ``cuda-bindings``, on a libcuda in host memory that the C compiler makes here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cxredge.cuda import installed

SOURCE = Path(__file__).with_name("stub_libcuda.c")

PROGRAM = """
import ctypes, threading
import numpy as np
from cxredge.cuda import current, open_driver
from cxredge.cuda.graphs import capture
from cxredge.errors import BackendError

stub = ctypes.CDLL("libcuda.so.1")

def state():
    objects, contexts, pushed = ctypes.c_long(), ctypes.c_int(), ctypes.c_int()
    stub.stub_state(ctypes.byref(objects), ctypes.byref(contexts), ctypes.byref(pushed))
    return objects.value, contexts.value, pushed.value

def there_and_back(driver):
    with current(driver):
        stream, address = driver.create_stream(), driver.allocate(4000)
        events = [driver.create_event() for _ in range(2)]
        pinned = [driver.allocate_pinned(4000) for _ in range(2)]
        there, back = (memory.view(np.float32).reshape(10, 100) for memory in pinned)
        there[:] = np.arange(1000).reshape(10, 100)
        driver.record(events[0], stream)
        driver.upload(address, there[:7], stream)
        driver.download(back[:7], address, stream)
        driver.record(events[1], stream)
        driver.synchronize(stream)
        assert (back[:7] == there[:7]).all() and (back[7:] == 0).all()
        assert driver.milliseconds(*events) == 1
        assert driver.memory() == (1 << 30, 1 << 30)
        graph = capture(lambda: driver.upload(address, there, stream), stream)
        there[:] = 5
        graph.launch(stream)
        driver.download(back, address, stream)
        driver.synchronize(stream)
        assert (back == 5).all()
        graph.close()
        for event in events:
            driver.destroy_event(event)
        for memory in pinned:
            driver.free_pinned(memory)
        driver.free(address)
        driver.destroy_stream(stream)

driver = open_driver()
there_and_back(driver)
assert state() == (0, 1, 0), state()
stub.cuCtxPushCurrent_v2(ctypes.c_void_p(0xBEEF))
there_and_back(driver)
thread = threading.Thread(target=there_and_back, args=(driver,))
thread.start()
thread.join()
try:
    with current(driver):
        driver.allocate(2 << 30)
except BackendError as error:
    print(error)
driver.close()
driver.close()
assert state() == (0, 0, 1), state()
print(driver.name, "gave everything back")
"""


def test_the_real_bindings_do_what_the_made_ones_do(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler")
    if not installed("cuda.bindings"):
        pytest.skip("cuda-bindings is not installed")
    library = tmp_path / "libcuda.so.1"
    command = [compiler, "-w", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", str(SOURCE), "-o", str(library)]
    subprocess.run([*command, "-ldl"], check=True)
    paths = [str(tmp_path), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "allocating 2147483648 bytes on the GPU failed: CUDA_ERROR_OUT_OF_MEMORY" in done.stdout
    assert "gave everything back" in done.stdout
