import io
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from crane.errors import UsageError
from crane.weights import HUB_REPOS, find_hub_code, hub_code_folder

REPO = HUB_REPOS[0]


def find(repo=REPO, source="github", repo_dir=None, allow_download=False):
    return find_hub_code(repo, source, repo_dir, allow_download, key="guide.features")


def test_a_clone_is_found_by_its_hubconf(tmp_path):
    (tmp_path / "hubconf.py").touch()
    assert find(source="local", repo_dir=tmp_path) == tmp_path


@pytest.mark.parametrize("repo_dir", [None, "/nowhere"])
def test_a_clone_without_hubconf_is_refused(repo_dir):
    with pytest.raises(
        UsageError, match=r"guide\.features\.repo_dir must be a folder with the hubconf\.py"
    ):
        find(source="local", repo_dir=repo_dir)


def test_the_copy_torch_hub_keeps_is_found():
    folder = Path(torch.hub.get_dir()) / REPO.replace("/", "_").replace(":", "_")
    folder.mkdir(parents=True)
    with pytest.raises(UsageError, match=r"dinov2_b8931f7\w+ has no hubconf\.py"):
        find()
    (folder / "hubconf.py").touch()
    assert find() == hub_code_folder(REPO) == folder


@pytest.mark.parametrize("allowed", [False, True])
def test_missing_code_says_where_it_comes_from_and_what_to_change(allowed):
    with pytest.raises(UsageError) as caught:
        find(allow_download=allowed)
    address = f"https://github.com/facebookresearch/dinov2/archive/{REPO.partition(':')[2]}.zip"
    for part in (
        address,
        "guide.features.source=local",
        "guide.features.repo_dir",
        "allow_download",
    ):
        assert part in str(caught.value)
    assert ("the download failed" in str(caught.value)) == allowed


@pytest.fixture
def served(monkeypatch):
    """GitHub without a network; what `hubconf.py` says can be set, and what was asked is known."""
    server = SimpleNamespace(asked=[], hubconf="dependencies = []\n")

    def download(url, path, *args, **kwargs):
        server.asked.append(url)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("facebookresearch-dinov2-b8931f7/", "")
            if server.hubconf is not None:
                archive.writestr("facebookresearch-dinov2-b8931f7/hubconf.py", server.hubconf)
        Path(path).write_bytes(content.getvalue())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    return server


@pytest.mark.parametrize("is_there", [False, True])
def test_allowed_code_is_fetched_at_its_commit_without_questions(served, is_there):
    if is_there:  # as an interrupted copy leaves it
        hub_code_folder(REPO).mkdir(parents=True)
    folder = find(allow_download=True)
    assert (folder / "hubconf.py").is_file()
    commit = REPO.partition(":")[2]
    assert served.asked == [f"https://github.com/facebookresearch/dinov2/zipball/{commit}"]


def test_code_that_fails_is_fetched_all_the_same(served):
    served.hubconf = "import no_such_module\n"
    assert (find(allow_download=True) / "hubconf.py").is_file()


def test_a_repository_without_hubconf_is_refused(served):
    served.hubconf = None
    with pytest.raises(UsageError, match=r"has no hubconf\.py|the download failed"):
        find(allow_download=True)


@pytest.mark.parametrize("repo", ["facebookresearch/dinov2", "dinov2:abc", "a/b:"])
def test_code_must_be_pinned(repo):
    with pytest.raises(
        UsageError, match=r"guide.features.repo must be a repository pinned at a commit"
    ):
        find(repo)


def test_code_that_ends_the_process_is_fetched_all_the_same(served):
    served.hubconf = "raise SystemExit(0)\n"
    assert (find(allow_download=True) / "hubconf.py").is_file()
