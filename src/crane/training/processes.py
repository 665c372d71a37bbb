"""The processes that Lightning starts beside this one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

STARTED_WITH = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
"""What Lightning leaves in the environment for the processes it starts."""


@contextmanager
def own_processes() -> Iterator[None]:
    """Let further processes end with the work in here, so that the next work starts its own.

    Without it the second run of a multirun waits for the processes of the first.
    """
    before = {name: os.environ.get(name) for name in STARTED_WITH}
    try:
        yield
    finally:
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
