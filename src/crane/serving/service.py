"""The server of `crane serve`, on LitServe: workers on several devices, batches, bounded queues.

LitServe's server is used with three changes: HTTP is served by a thread of the first process, so
that a request whose worker dies is answered at once; SIGTERM and Ctrl-C end everything; and what a
request may hold stands in the OpenAPI page.
"""

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi_swagger import patch_fastapi
from litserve import LitAPI, LitServer
from litserve.server import response_queue_to_buffer
from litserve.utils import WorkerSetupStatus
from omegaconf import DictConfig
from starlette.exceptions import HTTPException

from crane import __version__
from crane.errors import UsageError
from crane.prediction import find_device
from crane.serving.admission import PATH, Admission, Limits
from crane.serving.detector_api import DetectorAPI, worker_options

GRACE = 5
"""Seconds that requests have to end when the server stops."""

_MAP = {"type": "boolean", "default": False, "description": "Whether the answer holds the map."}
_BINARY, _BASE64 = {"format": "binary"}, {"contentEncoding": "base64"}
BODY = {
    "required": True,
    "content": {
        kind: {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "string", **coding}, "map": _MAP},
            }
        }
        for kind, coding in {"multipart/form-data": _BINARY, "application/json": _BASE64}.items()
    },
}
"""What a request holds, for the OpenAPI page."""
_NUMBER, _VERDICT = {"type": "number"}, {"type": ["boolean", "null"]}
_REGION = {
    "box": {"type": "array", "items": {"type": "integer"}, "description": "x0, y0, x1, y1"},
    "area": {"type": "integer", "description": "pixels"},
    "peak": _NUMBER,
}
_ANSWER = {
    "score": {**_NUMBER, "minimum": 0, "maximum": 1},
    "is_anomalous": _VERDICT,
    "threshold": {"type": ["object", "null"], "properties": {"value": _NUMBER}},
    "pixel_threshold": _NUMBER,
    "regions": {"type": "array", "items": {"type": "object", "properties": _REGION}},
    "height": {"type": "integer"},
    "width": {"type": "integer"},
    "map": {"type": "string", "description": "16-bit PNG as base64, if asked for"},
}
ANSWER = {"content": {"application/json": {"schema": {"type": "object", "properties": _ANSWER}}}}
"""What the answer holds, for the OpenAPI page."""


def serve(config: DictConfig) -> None:
    """Serve the detector of a configuration until SIGTERM or Ctrl-C.

    Args:
        config: Of `crane serve`, with the model of the checkpoint in it (`adopt_config`).

    Raises:
        UsageError: A value does not fit, the port is taken, or no worker could load the model.
        SystemExit: With 143, after SIGTERM.
        KeyboardInterrupt: After Ctrl-C.
        RuntimeError: The server ended by itself.
    """
    worker_options(config, str(find_device(config.accelerator)))
    service = Service(config)
    with suppress(OSError), socket.create_connection((_near(config.host), config.port), 1):
        raise UsageError(f"port={config.port} is in use; choose another port", key="port")
    stopped: list[int] = []

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        raise KeyboardInterrupt  # which LitServe ends on

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        service.run(
            host=config.host, port=config.port, log_level="warning", generate_client_file=False
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped[:1] == [signal.SIGINT]:
        raise KeyboardInterrupt
    if stopped:
        raise SystemExit(128 + stopped[0])
    raise RuntimeError(service.why)


def _near(host: str) -> str:
    """The address of this machine at which a server that listens on `host` answers."""
    return "127.0.0.1" if host == "0.0.0.0" else host


class _Front(threading.Thread):
    """The HTTP server in a thread, with the methods of a process that LitServe uses to end it."""

    def __init__(self, server: uvicorn.Server, sockets: Any, ended: Any) -> None:
        super().__init__(name="crane-http", daemon=True)
        self.server, self.sockets, self.ended = server, sockets, ended

    def run(self) -> None:
        """Serve until told to end."""
        try:
            self.server.run(self.sockets)
        finally:
            with suppress(Exception):
                self.ended.set()

    def terminate(self) -> None:
        """Answer what is open, and take nothing more."""
        self.server.should_exit = True

    def kill(self) -> None:
        """Close every connection."""
        self.server.force_exit = True


class _Unanswered(dict[str, Any]):
    """Requests that wait for a response; those given up, whose response came late, are dropped."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, uid: str, item: Any) -> None:
        super().__setitem__(uid, item)
        while len(self) > self.most:
            self.pop(next(iter(self)))


class Service(LitServer):
    """LitServe's server for one detector.

    Args:
        config: Of `crane serve`, with the model of the checkpoint in it.
    """

    def __init__(self, config: DictConfig) -> None:
        limits = Limits(config.max_queue, config.timeout, config.max_body_mb, config.max_pixels)
        if config.batch_timeout >= limits.timeout:
            raise UsageError("must be below timeout", key="batch_timeout")
        super().__init__(
            DetectorAPI(config, limits),
            accelerator="cuda" if config.accelerator == "gpu" else config.accelerator,
            devices=config.devices,
            workers_per_device=config.workers_per_device,
            timeout=limits.timeout,
            middlewares=[(Admission, {"limits": limits})],
            restart_workers=True,
            model_metadata={"method": config.method.name, "crane": __version__},
        )
        self.response_buffer = _Unanswered(4 * limits.max_queue)
        self.uvicorn_graceful_timeout, self.monitor_internal = GRACE, 0.5
        self.is_stopping = False
        self.why = "the HTTP server ended by itself"
        self.app.state.limits = limits
        self.app.add_exception_handler(HTTPException, _answer)
        self.address = f"http://{_near(config.host)}:{config.port}"
        self.app.title, self.app.version = "crane", __version__
        for route in list(self.app.routes):
            path = getattr(route, "path", "")
            if path in ("/redoc", self.app.docs_url, self.app.swagger_ui_oauth2_redirect_url):
                self.app.routes.remove(route)  # they load scripts from a CDN
            if path == PATH:
                route.openapi_extra = {"requestBody": BODY, "responses": {"200": ANSWER}}
                route.summary = "Score an image."
        self.app.docs_url = self.app.swagger_ui_oauth2_redirect_url = None
        patch_fastapi(self.app, redirect_from_root_to_docs=False)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Hand responses of workers to the requests that wait for them."""
        receiving = response_queue_to_buffer(
            self._transport, self.response_buffer, 0, self.litapi_connector
        )
        task = asyncio.create_task(receiving)
        try:
            yield
        finally:
            task.cancel()

    def _start_server(
        self, port: int, number: int, log_level: str, sockets: Any, kind: str, **options: Any
    ) -> dict[int, _Front]:
        self.app.response_queue_id = 0
        settings = uvicorn.Config(
            self.app, log_level=log_level, timeout_graceful_shutdown=GRACE, **options
        )
        front = _Front(uvicorn.Server(settings), sockets, self._shutdown_event)
        front.start()
        print(f"ready: POST {self.address}{PATH}, described at {self.address}/docs", flush=True)
        return {0: front}

    def verify_worker_status(self) -> None:
        """Wait until a worker is ready.

        Raises:
            UsageError: One ended before.
        """
        while WorkerSetupStatus.READY not in self.workers_setup_status.values():
            if all(worker.is_alive() for worker in self.inference_workers):
                time.sleep(0.05)
                continue
            for worker in self.inference_workers:
                worker.terminate()
            raise UsageError("a worker ended before it was ready; see above for its reason")

    def launch_single_inference_worker(self, lit_api: LitAPI, worker_id: int) -> Any:
        """Start another worker in place of one that died, unless the server stops."""
        name = f"{PATH.strip('/')}_{worker_id}"
        if self.is_stopping:
            return self.inference_workers[worker_id]
        if self.workers_setup_status[name] != WorkerSetupStatus.READY:
            self.is_stopping, self.why = True, "a worker died while it was started again"
            self._shutdown_event.set()
            return self.inference_workers[worker_id]
        return super().launch_single_inference_worker(lit_api, worker_id)

    def _perform_graceful_shutdown(self, *arguments: Any) -> None:
        self.is_stopping = True
        logging.getLogger("litserve").setLevel(logging.CRITICAL)  # its threads lose the manager
        super()._perform_graceful_shutdown(*arguments)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    """Answer an error in one sentence; what happened in a worker stands in the log."""
    assert isinstance(error, HTTPException)
    said = error.detail
    if error.status_code == 500:
        said = "the image could not be scored, as the server's log says; try again"
    return JSONResponse({"detail": said}, error.status_code, error.headers)
