"""Tab completion in bash, zsh and fish: Hydra's own, for each command of crane.

`eval "$(crane -sc install=bash)"` switches it on. Each press of Tab then asks
`crane -sc query=bash`, with what was typed so far in the variable COMP_LINE.
"""

import io
import os
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout

import hydra

from crane.checks import one_of
from crane.cli.arguments import ACTIONS, CACHE_ACTIONS, SHORT_NAMES
from crane.cli.validation import groups
from crane.config import conf_dir
from crane.named_prompts import prompt_names

FLAGS = ("-sc", "--shell-completion")
SHELLS = ("bash", "fish", "zsh")


def complete(request: str, commands: Iterable[str]) -> None:
    """Print what completes a command line, or the shell's script that asks for it.

    Args:
        request: `install`, `uninstall` or `query`, then `=` and the shell.
        commands: The commands of crane.

    Raises:
        UsageError: The request is another.
    """
    requests = [f"{verb}={shell}" for verb in ("install", "query", "uninstall") for shell in SHELLS]
    one_of(request, requests, "request for completion")
    words = os.environ.get("COMP_LINE", "crane ").split(" ")
    if request.startswith("query") and len(words) <= 2:
        print(*commands, "--help", "--version")
    elif request.startswith("query"):
        print(*_candidates(words[1], words[2:], request))
    else:
        print(_hydra("train", request))


def _candidates(command: str, typed: list[str], request: str) -> list[str]:
    """What can follow a command and complete words, the last of which is being typed."""
    if not (conf_dir() / f"{command}.yaml").is_file():
        return []
    key, equals, value = typed[-1].partition("=")
    if key == "checkpoint" and equals:
        return [f"checkpoint={name}" for name in prompt_names()]
    if key in SHORT_NAMES and equals:  # of a list, the name being typed
        start = value[: max(value.rfind("["), value.rfind(",")) + 1]
        return [f"{key}={start}{name}" for name in groups()["dataset"]]
    if command in ("data", "cache") and not equals:
        if len(typed) == 1:
            return list(ACTIONS if command == "data" else CACHE_ACTIONS)
        return list(groups()["dataset"]) if command == "data" else []
    os.environ["COMP_LINE"] = " ".join(["crane", *typed])
    found = _hydra(command, request).split()
    return [*found, *(f"{short}=" for short in SHORT_NAMES if f"{short}." in found)]


def _hydra(command: str, request: str) -> str:
    """What Hydra answers for one command."""
    sys.argv = ["crane", "-sc", request]
    with redirect_stdout(io.StringIO()) as answer:
        hydra.main(config_path=str(conf_dir()), config_name=command, version_base="1.3")(
            lambda _: 0
        )()
    return answer.getvalue().strip()
