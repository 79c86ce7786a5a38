"""How far a build is: TensorRT's phases, shown as a bar, and the way to stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

Show: TypeAlias = Callable[[str, int, int], None]
"""Takes the name of a phase, the steps that are done and the steps that there are."""


class BuildProgress:
    """The phases of one build; safe to call from TensorRT's threads.

    Args:
        show: told about every step of the outermost and the innermost phase.
    """

    def __init__(self, show: Show | None = None) -> None:
        self._show = show
        self._cancelled = threading.Event()
        self._steps: dict[str, int] = {}

    @property
    def cancelled(self) -> bool:
        """Whether the build was told to stop."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Stop the build at its next step."""
        self._cancelled.set()

    def start(self, phase: str, steps: int) -> None:
        """A phase of so many steps begins."""
        self._steps[phase] = steps
        self._tell(phase, 0)

    def step(self, phase: str, number: int) -> bool:
        """Step ``number``, counted from 0, of a phase is done; returns whether to go on."""
        self._tell(phase, number + 1)
        return not self.cancelled

    def finish(self, phase: str) -> None:
        """A phase is done."""
        self._tell(phase, self._steps.get(phase, 0))

    def _tell(self, phase: str, done: int) -> None:
        if self._show is not None:
            self._show(phase, done, self._steps.get(phase, 0))


def monitor_for(trt: Any, progress: BuildProgress) -> Any:
    """A ``trt.IProgressMonitor`` that passes everything on to ``progress``.

    The class is made here because its base exists only once a TensorRT has been chosen. It raises nothing:
    TensorRT calls it from C++, where an exception would end the process.
    """
    methods = {
        "phase_start": lambda _, phase, _parent, steps: progress.start(phase, steps),
        "step_complete": lambda _, phase, step: progress.step(phase, step),
        "phase_finish": lambda _, phase: progress.finish(phase),
    }
    return type("Monitor", (trt.IProgressMonitor,), methods)()


@contextmanager
def progress_bar() -> Iterator[Show]:
    """A bar for each phase that goes on, on a terminal; silent elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    tasks: dict[str, TaskID] = {}
    lock = threading.Lock()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:

        def show(phase: str, done: int, total: int) -> None:
            with lock:  # TensorRT has threads of its own
                task = tasks.setdefault(phase, TaskID(-1))
                if task == -1:
                    task = tasks[phase] = progress.add_task(phase)
            progress.update(task, completed=done, total=total, visible=done < total)

        yield show
