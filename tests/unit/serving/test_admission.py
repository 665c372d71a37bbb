"""How a request is read: whatever pieces it comes in, it is answered once all of it is there."""

import asyncio
from importlib import import_module
from itertools import accumulate
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

fastapi = pytest.importorskip("fastapi", reason="fastapi is not installed")
admission = import_module("crane.serving.admission")

LIMITS = admission.Limits(max_queue=1, timeout=9.0, max_body_mb=0.001, max_pixels=100)


def read(sizes: list[int]) -> tuple[int, int]:
    """The status of a body of these pieces, and how many of them were asked for."""
    asked = 0

    async def receive() -> dict[str, object]:
        nonlocal asked
        asked += 1
        assert asked <= len(sizes), "it waits for more than the client sends"
        more = asked < len(sizes)
        return {"type": "http.request", "body": bytes(sizes[asked - 1]), "more_body": more}

    app = SimpleNamespace(state=SimpleNamespace(limits=LIMITS))
    scope = {"type": "http", "method": "POST", "headers": [], "app": app}
    with pytest.raises(fastapi.HTTPException) as refused:
        asyncio.run(admission.read_upload(fastapi.Request(scope, receive)))
    return refused.value.status_code, asked


@given(st.lists(st.integers(0, 1500), min_size=1, max_size=8))
def test_a_body_in_any_pieces_is_answered(sizes):
    status, asked = read(sizes)
    assert status == (413 if sum(sizes) > LIMITS.max_body else 415)
    far = [total > 2 * LIMITS.max_body for total in accumulate(sizes)]
    assert asked == (far.index(True) + 1 if any(far) else len(sizes))
