import pytest

from crane.training import wandb_logger

PLAIN = {"project": "crane", "name": None, "group": None, "tags": ["Crane"]}


@pytest.fixture(autouse=True)
def _no_key(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def is_offline(tmp_path, offline="auto"):
    made = wandb_logger(**PLAIN, offline=offline, save_dir=tmp_path / "run")
    assert (tmp_path / "run").is_dir()
    assert made.save_dir == str(tmp_path / "run")
    return made._offline


def test_without_a_key_it_is_offline(tmp_path):
    assert is_offline(tmp_path)


def test_with_a_key_it_is_online(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert not is_offline(tmp_path)


@pytest.mark.parametrize(
    ("host", "offline"), [("api.wandb.ai", False), ("example.org", True), ("wandb.org", True)]
)
def test_a_stored_login_counts_as_a_key(tmp_path, monkeypatch, host, offline):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {host} login user password {'0' * 40}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert is_offline(tmp_path) == offline


def test_what_is_said_stands(tmp_path, monkeypatch):
    assert not is_offline(tmp_path, offline=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert is_offline(tmp_path, offline=True)


def test_wandbs_own_mode_decides_over_auto(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not is_offline(tmp_path)


def test_a_server_of_ones_own_has_its_own_login(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine wandb.me:8080 login user password {'0' * 40}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert is_offline(tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.me:8080/")
    assert not is_offline(tmp_path)


def test_a_login_file_that_cannot_be_read_is_no_key(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine wandb api.wandb.ai nonsense")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert is_offline(tmp_path)
