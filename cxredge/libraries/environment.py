"""Environment variables of the host application, which cxredge leaves as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept(variable: str) -> Iterator[None]:
    """Have an environment variable afterwards as it was before, whatever a library's import makes of it."""
    before = os.environ.get(variable)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before
