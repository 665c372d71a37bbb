"""What a server takes in: how many requests, how large, how long, and nothing but image bytes."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile

from crane.checks import PositiveFloat, PositiveInt, checked
from crane.errors import counted

PATH = "/predict"
"""The route that scores an image."""
FIELDS = ("image", "map")
"""What a request may hold."""
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
WANTED = (
    "send the file as the field image of a multipart form, or its base64 as the key image of JSON"
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]


@checked
@dataclass(frozen=True)
class Limits:
    """What a server refuses.

    Raises:
        UsageError: A value is out of range.
    """

    max_queue: PositiveInt
    """Requests at once, those being scored included; further ones are answered with 503."""
    timeout: PositiveFloat
    """Seconds after which a request is answered with 504."""
    max_body_mb: PositiveFloat
    """Size of a request in megabytes (10^6 bytes); larger ones are answered with 413."""
    max_pixels: PositiveInt
    """Pixels of an image, by its header; larger ones are answered with 413, and not decoded."""

    @property
    def max_body(self) -> int:
        """Size of a request in bytes."""
        return round(1e6 * self.max_body_mb)


@dataclass(frozen=True)
class Upload:
    """A request: the bytes of an image file."""

    image: bytes
    with_map: bool
    """Whether the response holds the map."""


class Admission:
    """ASGI middleware that bounds the number of requests and their time.

    Args:
        app: What answers those admitted.
        limits: The bounds.
    """

    def __init__(self, app: App, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.num_admitted = 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self.app(scope, receive, send)
            return
        seconds, most = self.limits.timeout, self.limits.max_queue
        if self.num_admitted >= most:
            await _discard(receive, self.limits)
            busy = f"{counted(most, 'request is', 'requests are')} waiting already; try again later"
            await _refusal(503, busy)(scope, receive, send)
            return
        is_started = False

        async def tracked(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        self.num_admitted += 1
        try:
            await asyncio.wait_for(self.app(scope, receive, tracked), seconds)
        except asyncio.TimeoutError:
            if not is_started:
                late = f"no result within {seconds:g} seconds; try again later"
                await _refusal(504, late)(scope, receive, send)
        finally:
            self.num_admitted -= 1


def _refusal(code: int, said: str) -> JSONResponse:
    return JSONResponse({"detail": said}, code, {"Retry-After": "1"})


async def _discard(receive: Receive, limits: Limits) -> None:
    """Take in what a client still sends, so that it reads the answer instead of a broken pipe."""
    total, is_more = 0, True

    async def read() -> None:
        nonlocal total, is_more
        while is_more and total <= limits.max_body:
            message = await receive()
            total += len(message.get("body", b""))
            is_more = bool(message.get("more_body"))

    try:
        await asyncio.wait_for(read(), limits.timeout)
    except asyncio.TimeoutError:
        return


async def read_upload(request: Request) -> Upload:
    """Read a request; a dependency of the route, whose limits lie in the state of its app.

    Raises:
        HTTPException: It is too large (413), of another kind (415), or holds anything but an image
            and whether a map is wanted (400).
    """
    limits: Limits = request.app.state.limits
    body, total = bytearray(), 0
    async for chunk in request.stream():
        total += len(chunk)
        if total <= limits.max_body:
            body += chunk
        if total > 2 * limits.max_body:
            break  # up to here a client can send all, and then read the answer
    if total > limits.max_body:
        raise HTTPException(413, f"a request may have {limits.max_body:,} bytes at most")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        fields = _fields_of_json(bytes(body))
    elif kind == "multipart/form-data":
        fields = await _fields_of_form(request, bytes(body))
    else:
        raise HTTPException(415, WANTED)
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise HTTPException(400, f"unknown field {unknown[0]!r:.60}; {WANTED}")
    content = fields.get("image")
    if not isinstance(content, bytes):
        raise HTTPException(400, f"there is no image; {WANTED}")
    if not content:
        raise HTTPException(400, f"the image is empty; {WANTED}")
    return Upload(content, _flag(fields.get("map", request.query_params.get("map", "false"))))


def _flag(value: object) -> bool:
    flag = _TRUTH.get(str(value).lower())
    if flag is None:
        raise HTTPException(400, f"map must be true or false, not {value!r:.60}")
    return flag


def _fields_of_json(body: bytes) -> dict[str, object]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, f"the body is not JSON; {WANTED}") from None
    if not isinstance(fields, dict):
        raise HTTPException(400, f"the body must be a JSON object; {WANTED}")
    try:
        if "image" in fields:
            fields["image"] = base64.b64decode(fields["image"], validate=True)
    except (TypeError, ValueError):
        raise HTTPException(400, f"image is not base64; {WANTED}") from None
    return fields


async def _fields_of_form(request: Request, body: bytes) -> dict[str, object]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        form = await Request(request.scope, receive).form(max_files=1, max_fields=len(FIELDS))
    except HTTPException as error:
        raise HTTPException(400, f"{error.detail}; {WANTED}") from None
    except Exception as error:  # the parser's own, on bodies that are no form
        raise HTTPException(400, f"the form cannot be read; {WANTED}") from error
    return {
        name: await value.read() if isinstance(value, UploadFile) else value
        for name, value in form.multi_items()
    }
