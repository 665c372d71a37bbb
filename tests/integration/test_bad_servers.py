"""Servers that cut, stall, err or answer something else: one line, and nothing half is kept."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub.constants
import pytest
import torch
from torch import hub

from crane.errors import UsageError
from crane.files import sha256
from crane.weights import CATALOGUE, HUB_REPOS, find_hub_code, find_weights

CLIP, DINO = "ViT-L-14-336/openai", "dinov2_vitb14_reg4_pretrain.pth"
HUB = "timm/vit_base_patch8_224.dino"
Answer = Callable[[BaseHTTPRequestHandler], None]


def cut(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    request.wfile.write(b"PK" * 500)


def stall(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    request.wfile.write(b"PK")
    request.wfile.flush()
    time.sleep(3)


def err(request: BaseHTTPRequestHandler) -> None:
    request.send_error(500)


def web_page(request: BaseHTTPRequestHandler) -> None:
    whole(b"<!DOCTYPE html><title>Sign in to this network</title>")(request)


def nothing(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True


def loop(request: BaseHTTPRequestHandler) -> None:
    request.send_response(302)
    request.send_header("Location", request.path)
    request.end_headers()


def whole(content: bytes) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


BAD = [cut, stall, err, web_page, nothing, loop]


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[[Answer], str]]:
    """Start a server on this machine that always gives one answer; returns its address."""
    monkeypatch.setattr("crane.weights.locate.PATIENCE", 0.5)
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("answer", BAD)
@pytest.mark.parametrize("name", [CLIP, DINO], ids=["with a checksum", "without one"])
def test_a_bad_download_of_weights_leaves_nothing(serve, monkeypatch, tmp_path, name, answer):
    entry = replace(CATALOGUE[name], url=f"{serve(answer)}/weights.pt")
    monkeypatch.setitem(CATALOGUE, name, entry)
    begun = time.monotonic()
    with pytest.raises(UsageError, match=r"the download failed") as caught:
        find_weights(name, tmp_path / "w", allow_download=True, key="backbone.model.weights")
    assert str(tmp_path / "w") in str(caught.value), "where to put the file"
    assert "\n" not in str(caught.value)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    assert time.monotonic() - begun < 10


def test_a_whole_download_is_used(serve, monkeypatch, tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "given.pt")
    content = (tmp_path / "given.pt").read_bytes()
    entry = replace(CATALOGUE[DINO], url=f"{serve(whole(content))}/weights.pt")
    monkeypatch.setitem(CATALOGUE, DINO, entry)
    found = find_weights(DINO, tmp_path / "w", allow_download=True)
    assert sha256(found) == sha256(tmp_path / "given.pt")


@pytest.mark.parametrize("answer", BAD)
def test_a_bad_download_of_code_leaves_nothing(serve, monkeypatch, tmp_path, answer):
    monkeypatch.setattr(hub, "get_dir", lambda: str(tmp_path / "hub"))
    address = f"{serve(answer)}/code.zip"
    monkeypatch.setattr(hub, "_git_archive_link", lambda *args: address)
    with pytest.raises(UsageError, match=r"is missing: the download failed, \w+"):
        find_hub_code(HUB_REPOS[0], "github", None, True, key="guide.features")
    assert not list(tmp_path.rglob("hubconf.py"))


@pytest.mark.parametrize("answer", [cut, web_page, nothing])
def test_a_bad_hub_is_an_error(serve, monkeypatch, tmp_path, answer):
    address = serve(answer)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    template = huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE
    ours = address + template[template.index("/{repo_id}") :]
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", ours)
    with pytest.raises(UsageError, match=r"the download failed"):
        find_weights(HUB, tmp_path, allow_download=True)
    assert not list(Path(tmp_path).rglob("*.safetensors"))
