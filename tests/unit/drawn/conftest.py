from dataclasses import replace

import pytest

from crane import drawn
from crane.drawn import embedded_domain, index_embedded, make_embedded


@pytest.fixture(scope="session")
def boards_root():
    """The folder that holds the smallest domain, shared with all tests of the session."""
    return make_embedded(domain="boards").parent


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

    monkeypatch.setattr(drawn, "embedded_domain", shrunk)
