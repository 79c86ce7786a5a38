"""Ray (extra ``ray``), imported and started so that it reports nothing to anyone and keeps nothing in the user's home.

Clusters that Ray starts report their use to its makers unless they are told not to, and ``ray.init`` keeps a token in
the user's home. Both are decided by environment variables when Ray is started here; whoever runs a cluster of their
own decides for it (``RAY_USAGE_STATS_ENABLED=0 ray start ...``).
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cxredge.errors import MissingExtraError
from cxredge.libraries.environment import kept

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment variables that keep Ray from reporting, asking and drawing."""
OWN_TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
"""Environment variables of how the processes of a cluster know one another."""
PRIORITY = "RAY_worker_niceness"
"""Environment variable of how far Ray's workers stand back behind other programs; by itself almost altogether."""


@contextmanager
def quiet(*, own_cluster: bool) -> Iterator[None]:
    """Environment variables with which Ray keeps silent; afterwards they are what they were.

    Args:
        own_cluster: Ray is started in it, with a token that exists in these processes only.
    """
    values = dict(QUIET)
    if own_cluster:
        values |= dict(zip(OWN_TOKEN, ("token", secrets.token_hex(32)), strict=True)) | {PRIORITY: "0"}
    with ExitStack() as stack:
        for name, value in values.items():
            stack.enter_context(kept(name))
            os.environ[name] = value
        yield


def import_silently() -> None:
    """Import Ray and Ray Data.

    Raises:
        MissingExtraError: they are not installed.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtraError("cxredge segment --ray", "ray") from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if hasattr(ray._private.worker, "_worker_logs_enabled"):  # what daemons say would stand among the results
        ray._private.worker._worker_logs_enabled = False
