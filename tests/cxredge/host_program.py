"""A host application that uses cxredge and looks at everything in its process that is not cxredge's.

Run as ``python host_program.py KIND BACKEND MODEL FOLDER``; prints what had changed after each step as JSON. A
``bare`` host has imported numpy only, a ``rich`` one has set up everything that it could itself.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import json
import locale
import logging
import multiprocessing
import os
import random
import resource
import signal
import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


def snapshot() -> dict[str, Any]:
    """Everything global that the interpreter has."""
    umask = os.umask(0o22)
    os.umask(umask)
    root = logging.getLogger()
    loggers = {k: v for k, v in root.manager.loggerDict.items() if isinstance(v, logging.Logger)}
    return {
        "environment": dict(os.environ),
        "working directory": str(Path.cwd()),
        "import": [sys.path[:], [one for one in sys.meta_path if not is_absl(one)], sys.path_hooks[:]],
        "warnings": [warnings.filters[:], warnings.showwarning],
        "logging": [root.level, root.handlers[:], root.filters[:], root.disabled, root.manager.disable],
        "logging classes": [logging.getLoggerClass(), logging.getLogRecordFactory(), logging.raiseExceptions],
        "loggers that speak": sorted(n for n, v in loggers.items() if [h for h in v.handlers if speaks(h)]),
        "signals": [signal.getsignal(one) for one in SIGNALS] + [signal.getitimer(signal.ITIMER_REAL)],
        "hooks": [sys.excepthook, sys.unraisablehook, sys.displayhook, sys.gettrace(), sys.getprofile()],
        "thread hooks": [threading.excepthook, threading.gettrace(), threading.stack_size()],
        "streams": [sys.stdin, sys.stdout, sys.stderr],
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "files": sorted(map(str, Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else [],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), gc.isenabled(), gc.get_threshold(), umask],
        "resources": [resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT")],
        "scheduling": [os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0))],
        "locale": locale.setlocale(locale.LC_ALL),
        "random numbers": [random.getstate(), repr(np.random.get_state())],  # noqa: NPY002 (the global ones)
        "numpy": [np.geterr(), np.geterrcall(), np.getbufsize(), np.get_printoptions()],
        "others": [socket.getdefaulttimeout(), faulthandler.is_enabled(), multiprocessing.get_start_method(True)],
        **libraries(),
    }


def is_absl(finder: object) -> bool:
    """absl, which OpenVINO imports where it is installed, notices reloads by a finder that finds nothing."""
    return type(finder).__module__.startswith("absl.")


def speaks(handler: logging.Handler) -> bool:
    return not isinstance(handler, logging.NullHandler)


def libraries() -> dict[str, Any]:
    """Settings of the libraries that the host has imported by itself."""
    found: dict[str, Any] = {}
    if "cv2" in OWN:
        import cv2

        found["opencv"] = [cv2.getNumThreads(), cv2.useOptimized(), cv2.ocl.useOpenCL()]
        found["opencv's log"] = cv2.utils.logging.getLogLevel()
    if "PIL" in OWN:
        from PIL import Image, ImageFile

        found["pillow"] = [Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES]
    if "pydicom" in OWN:
        from pydicom import config

        settings = config.settings
        found["pydicom"] = [settings.reading_validation_mode, settings.writing_validation_mode, config.debugging]
    return found


OWN: set[str] = set()


def set_everything_up() -> None:
    """What a rich host does before it imports cxredge."""
    import cv2
    from PIL import Image
    from pydicom import config

    OWN.update({"cv2", "PIL", "pydicom"})
    cv2.setNumThreads(3)
    Image.MAX_IMAGE_PIXELS = 123_456_789
    config.settings.reading_validation_mode = config.RAISE
    logging.basicConfig(level=logging.DEBUG, handlers=[logging.FileHandler(os.devnull)])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    sys.excepthook = lambda *_: None
    np.seterr(all="raise")
    np.random.seed(4711)  # noqa: NPY002 (the global ones)
    random.seed(4711)
    socket.setdefaulttimeout(17)
    os.environ["LD_LIBRARY_PATH"] = "/opt/host/lib"
    os.environ["OMP_NUM_THREADS"] = "5"
    warnings.simplefilter("error")


def steps(backend: Any, model: Path, folder: Path) -> Any:
    """Use cxredge in all ways; yields a name after each."""
    import cxredge

    yield "import cxredge"
    from cxredge import CxredgeError, Segmenter

    yield "import Segmenter"
    segmenter = Segmenter.load(model, backend=backend)
    yield "load"
    segmenter.warm_up()
    yield "warm up"
    pixels = np.load(folder / "pixels.npy")
    segmenter(pixels)
    yield "call"
    for file in sorted(folder.iterdir()):
        segmenter(file)
        yield f"read {file.name}"
    for wrong in (folder / "absent.png", Path(__file__), pixels * 0):
        try:
            segmenter(wrong)
        except CxredgeError:
            yield f"refuse {wrong if isinstance(wrong, Path) else 'a flat image'}"
    list(segmenter.stream([pixels] * 10, batch_size=2, workers=2))
    yield "stream"

    async def submit() -> None:
        await asyncio.gather(*(asyncio.wrap_future(segmenter.submit(pixels)) for _ in range(5)))

    asyncio.run(submit())
    yield ""  # its thread is there until it is closed
    segmenter.close()
    yield "close"
    assert cxredge.__version__


def main(kind: str, backend: str, model: Path, folder: Path) -> None:
    """Print what differs after each step."""
    if kind == "rich":
        set_everything_up()
    asyncio.run(asyncio.sleep(0))
    before = snapshot()
    changes = {}
    for step in steps(backend, model, folder):
        after = snapshot()
        changed = {name: [repr(before[name]), repr(after[name])] for name in before if before[name] != after[name]}
        if step and changed:
            changes[step] = changed
    print(json.dumps(changes))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
