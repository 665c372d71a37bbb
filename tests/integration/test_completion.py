"""Tab completion: what bash is given for a line that is being typed."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from crane.config import conf_dir


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("crane tr", {"train"}),
        ("crane train seed=1 attention=v", {"attention=vv"}),
        ("crane train sou", {"source="}),
        ("crane train optimizer.l", {"optimizer.lr="}),
        ("crane test targets=[mvtec,vi", {"targets=[mvtec,visa"}),
        ("crane data ver", {"verify"}),
        ("crane data verify mp", {"mpdd"}),
        ("crane predict checkpoint=crane_m", {"checkpoint=crane_mvtec"}),
        ("crane nonsense x", set()),
    ],
)
def test_what_completes_a_line(crane, monkeypatch, line, some):
    monkeypatch.setenv("COMP_LINE", line)
    found = crane("-sc", "query=bash")
    assert (found.code, found.err) == (0, "")
    assert some <= set(found.out.split())
    assert bool(found.out.split()) == bool(some)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_itself_completes(tmp_path):
    program = tmp_path / "crane"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m crane "$@"\n')
    program.chmod(0o755)
    shell = """
    eval "$(crane -sc install=bash)"
    COMP_LINE="crane train loss=" COMP_CWORD=2
    hydra_bash_completion
    echo "${COMPREPLY[@]}"; complete -p crane
    """
    done = subprocess.run(
        ["bash", "-c", shell],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    offered, registered = done.stdout.splitlines()
    assert set(offered.split()) == {f"loss={file.stem}" for file in (conf_dir() / "loss").iterdir()}
    assert registered.endswith("-F hydra_bash_completion crane")


@pytest.mark.parametrize("shell", ["fish", "zsh"])
def test_the_other_shells_have_scripts(crane, shell):
    found = crane("-sc", f"install={shell}")
    assert found.code == 0
    assert "crane" in found.out


def test_another_request_is_named(crane):
    found = crane("-sc", "remove")
    assert found.code == 2
    assert "unknown request for completion 'remove'" in found.err
