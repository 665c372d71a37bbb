from dataclasses import replace

import pytest

from crane.drawn import embedded_domain, index_embedded, writer


@pytest.fixture(scope="session")
def boards_root(tmp_path_factory):
    """A folder that holds the smallest domain, whole."""
    root = tmp_path_factory.mktemp("embedded")
    writer.make_embedded(root, "boards")
    return root


@pytest.fixture
def boards(boards_root):
    return index_embedded("embedded_boards", boards_root, "boards", "test", mask_threshold=0)


@pytest.fixture
def tiny(monkeypatch):
    """Make every domain hold one class, with one image a folder."""

    def shrunk(name):
        domain = embedded_domain(name)
        first = next(iter(domain.classes))
        classes = {first: domain.classes[first]}
        return replace(domain, classes=classes, num_train=1, num_good=1, num_per_kind=1)

    monkeypatch.setattr(writer, "embedded_domain", shrunk)
