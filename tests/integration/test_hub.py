"""Checkpoints on the Hugging Face Hub: against a local folder and a hub on the loopback address."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import huggingface_hub.constants
import numpy as np
import pytest
import yaml

import crane as package
from crane.errors import UsageError

pytestmark = pytest.mark.long

IMAGE = np.random.default_rng(8).integers(0, 256, (60, 80, 3), dtype=np.uint8)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def detector():
    return package.load("mini", device="cpu", threshold=0.25)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with one repository, `owner/name`; what is pushed replaces its files."""
    files: dict[str, bytes] = {}
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def answer(self, code=200, content=b"{}", **headers):
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_GET(self):
            asked.append(self.path)
            found = re.fullmatch(r"/owner/name/resolve/([^/]+)/(.+)", self.path)
            if found is None:
                self.answer(404, X_Error_Code="RepoNotFound")
            elif found[1] not in ("main", "v1", COMMIT):
                self.answer(404, X_Error_Code="RevisionNotFound")
            elif found[2] not in files:
                self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            else:
                content = files[found[2]]
                tag = f'"{hashlib.sha256(content).hexdigest()}"'
                self.answer(200, content, ETag=tag, X_Repo_Commit=COMMIT)

        def do_HEAD(self):
            self.do_GET()

        def do_POST(self):
            asked.append(self.path)
            length = self.headers.get("Content-Length")
            body = self.rfile.read(int(length)) if length else self.chunks()
            place = f"http://{self.headers['Host']}/owner/name"
            if self.path.endswith("/preupload/main"):
                wanted = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                    for f in json.loads(body)["files"]
                ]
                self.answer(200, json.dumps({"files": wanted}).encode())
            elif "/commit/main" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                told = {"commitUrl": f"{place}/commit/{COMMIT}", "commitOid": COMMIT}
                self.answer(200, json.dumps({"success": True, **told}).encode())
            elif self.path == "/api/repos/create":
                self.answer(200, json.dumps({"url": place, "name": "owner/name"}).encode())
            else:
                self.answer(200)

        def chunks(self) -> bytes:
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    ours = address + template[template.index("/{repo_id}") :]
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", ours)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield type("Given", (), {"files": files, "asked": asked})
    server.shutdown()
    server.server_close()


def test_a_folder_holds_checkpoint_configuration_and_card(detector, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.csv").write_text(
        "dataset,class,image_auroc,aupro\nvisa,candle,0.5,nan\nvisa,mean,0.8125,0.5\n"
    )
    folder = detector.save_pretrained(
        tmp_path / "folder", repo="me/parts", licence="mit", results=tmp_path / "run"
    )
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    again = package.load(folder / "model.safetensors", device="cpu")
    assert again.predict(IMAGE).score == detector.predict(IMAGE).score
    assert again.threshold == detector.threshold
    assert json.loads((folder / "config.json").read_text())["image_size"] == detector.image_size
    _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    facts = yaml.safe_load(head)
    assert (facts["license"], facts["library_name"]) == ("mit", "crane")
    assert "| visa | 81.2 | 50.0 |" in text
    assert 'crane.load("hf://me/parts")' in text
    assert "threshold: 0.25" in text
    with pytest.raises(UsageError, match="cannot read results"):
        detector.save_pretrained(tmp_path / "folder", results=tmp_path / "nothing")


def test_what_is_pushed_is_loaded(detector, hub, crane, tmp_path):
    assert COMMIT in detector.push_to_hub("owner/name", licence="mit", token="hf_x")
    assert {*hub.files} == {"model.safetensors", "config.json", "README.md"}
    hub.files["evil.py"] = b"raise SystemExit"
    hub.asked.clear()
    for spec in ("hf://owner/name", "hf://owner/name@v1"):
        again = package.load(spec, device="cpu")
        assert again.predict(IMAGE).score == detector.predict(IMAGE).score
        assert again.threshold == detector.threshold
    assert {path.rpartition("/")[2] for path in hub.asked} == {"model.safetensors"}
    offline = package.load("hf://owner/name", device="cpu", overrides=["allow_download=false"])
    assert offline.threshold == detector.threshold


SPECS = {
    "hf://owner/name@v9": "owner/name has no revision v9",
    "hf://owner/other": "there is no repository owner/other",
    "hf://owner/name": "owner/name has no model.safetensors",
}


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_not_there_is_said(hub, crane, spec):
    outcome = crane("predict", f"checkpoint={spec}", "input=.")
    assert outcome.code == 2
    assert SPECS[spec] in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    "spec", ["hf://", "hf://name", "hf://a/b/c", "hf://../x", "hf://a/b@", "hf://a/b@../c"]
)
def test_a_name_of_no_repository_is_refused(crane, spec):
    outcome = crane("predict", f"checkpoint='{spec}'", "input=.")
    assert outcome.code == 2
    assert "checkpoint must be hf://OWNER/NAME" in outcome.err


def test_offline_ends_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="cannot reach the Hugging Face Hub") as caught:
        package.load("hf://owner/name", device="cpu")
    assert "\n" not in str(caught.value)


def test_a_damaged_or_hostile_checkpoint_is_refused(hub):
    hub.files["model.safetensors"] = b"\x80\x04cos\nsystem\n"
    with pytest.raises(UsageError, match=r"safetensors"):
        package.load("hf://owner/name", device="cpu")


def test_a_push_that_fails_ends_in_one_sentence(detector):
    with pytest.raises(UsageError, match="cannot push to owner/name") as caught:
        detector.push_to_hub("owner/name", token="hf_x")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="hf://OWNER/NAME"):
        detector.push_to_hub("name")
