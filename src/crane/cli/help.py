"""Help, read from the comments of the configuration itself, and tab completion by Hydra.

`eval "$(crane -sc install=bash)"` (or zsh, fish) switches completion on. Each press of Tab then
asks `crane -sc query=bash`, with what was typed so far in the variable COMP_LINE.
"""

import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from crane.checks import one_of
from crane.cli.arguments import ACTIONS, CACHE_ACTIONS, SHORT_NAMES
from crane.cli.validation import groups
from crane.config import conf_dir
from crane.named_prompts import prompt_names

EXAMPLES = {
    "train": (
        "crane train method=crane_plus source=[mvtec] targets=[visa,mpdd]",
        "crane train backbone=tiny source=[embedded_parts] attention=vv prompt=pad_prefix",
        "crane train -m attention=vv,qq+kk+vv seed=1,2,3   # every combination",
    ),
    "test": (
        "crane test checkpoint=runs/train/…/prompts/epoch_5.safetensors targets=[mpdd,btad]",
        "crane test checkpoint=epoch_5.pth method=crane_plus targets=[mvtec]   # official",
    ),
    "predict": (
        "crane predict input=photos/   # with the authors' prompts; checkpoint=mini is a toy",
        "crane predict checkpoint=epoch_5.safetensors input='*.png' calibration.input=good/",
        "crane predict input=s3://bucket/photos output=/shared/scored engine=ray   # on a cluster",
        "crane predict input=camera/ output=scored watch=true threshold=0.6   # as they arrive",
    ),
    "serve": (
        "crane serve   # the authors' prompts, at http://127.0.0.1:8000",
        "crane serve checkpoint=my_parts.safetensors threshold=0.6 workers_per_device=2 port=9000",
    ),
    "app": (
        "crane app checkpoints=[mini]   # a toy, without downloads, at http://127.0.0.1:7860",
        "crane app checkpoints=[my_parts.safetensors,crane_mvtec] attentions=[vv,clip]",
    ),
    "export": (
        "crane export checkpoint=epoch_5.safetensors threshold=0.5   # ONNX, images of any size",
        "crane export checkpoint=mini format=openvino precision=fp16 size=[480,640]",
        "crane export checkpoint=mini precision=int8 input=good/ output=mini.onnx",
    ),
    "weights": ("crane weights method=crane_plus",),
    "demo": ("crane demo",),
    "cache": (
        "crane cache list",
        "crane cache prune unused_days=30",
        "crane cache prune 3f2a5b6c7d8e9f01",
    ),
    "reproduce": (
        "crane reproduce table1_zero_shot plan_only=true   # any folder of experiments/",
        "crane reproduce experiments/table1_zero_shot overrides='trainer=gpu data.num_workers=8'",
        "crane reproduce experiments/ablation_* suite=mini",
    ),
    "data": (
        "crane data list",
        "crane data prepare visa archive=VisA_20220922.tar",
        "crane data verify mvtec visa --fast",
        "crane data stats folder targets.folder.root=my_parts",
    ),
    "workspace": ("crane workspace entity=my-team project=crane datasets=[visa,mpdd]",),
    "report": (
        "crane report runs/train/2026-01-31_12-00-00_sweep",
        "crane report runs/vv runs/clip output=report columns=[image_auroc,aupro]",
        "crane report runs/table1 published=experiments/table1_zero_shot/published.csv",
    ),
}


KEY_LINE = re.compile(r"(?P<indent> *)(?P<key>[a-z]\w*): *(?P<value>.*)")
"""A line of YAML with a key of ours; Hydra's own begin with an underscore."""

OF_THE_CHECKPOINT = {"attention", "backbone", "guide", "loss", "prompt", "scoring"}
"""Groups that a checkpoint decides."""
OF_CHECKPOINTS = ("predict", "test", "serve", "export")
"""Commands that take a checkpoint."""


def overview(commands: Iterable[str]) -> None:
    """Print what crane is and its commands."""
    console = Console(highlight=False)
    console.print("[bold]crane[/bold]: zero-shot anomaly detection with Crane and Crane+\n")
    table = Table.grid(padding=(0, 3))
    for name in commands:
        text = description(conf_dir() / f"{name}.yaml", whole=True)
        table.add_row(f"  crane {name}", escape(text))
    console.print(table)
    console.print("\n[bold]crane COMMAND --help[/bold] lists its groups, options and keys.")


def command_help(command: str, more: Sequence[Path] = ()) -> None:
    """Print a command's own keys, its groups with their options, and examples.

    Args:
        command: The command.
        more: Folders of the user's own with further options.
    """
    console = Console(highlight=False)
    file = conf_dir() / f"{command}.yaml"
    console.print(f"[bold]crane {command}[/bold] KEY=VALUE …\n")
    console.print(escape(description(file, whole=True)) + "\n")
    console.print("[bold]Keys[/bold]")
    for line in [*own_keys(file), *shared_keys(file)]:
        if line and not line.startswith("#"):
            console.print(f"  {escape(line)}", soft_wrap=True)
    console.print(
        "\n[bold]Groups[/bold]: GROUP=OPTION chooses one, GROUP.KEY=VALUE changes a value"
    )
    used = groups_of(file)
    if command in OF_CHECKPOINTS:
        used -= OF_THE_CHECKPOINT
    for group, names in groups(more).items():
        if group in used:
            console.print(f"\n  [bold cyan]{group}[/bold cyan]{_where(group)}")
            table = Table.grid(padding=(0, 2))
            for name in names:
                places = (place / group / f"{name}.yaml" for place in (*more, conf_dir()))
                comment = description(next(place for place in places if place.is_file()))
                table.add_row(f"    {name}", f"[dim]{escape(comment)}[/dim]")
            console.print(table)
            for line in _nested_keys(file, group):
                console.print(f"    [dim]{escape(line)}[/dim]", soft_wrap=True)
    if command in OF_CHECKPOINTS:
        fixed = ", ".join(sorted(OF_THE_CHECKPOINT))
        console.print(f"\n  {fixed}: as in the checkpoint; crane train --help lists their options")
    console.print("\n[bold]Examples[/bold]")
    for example in EXAMPLES[command]:
        console.print(f"  {escape(example)}", soft_wrap=True)
    console.print(
        "\n[bold]More[/bold]\n  --cfg job     the whole configuration, nothing run"
        "\n  -m            multirun: comma-separated values are swept"
        "\n  --hydra-help  Hydra's own flags"
    )


def _nested_keys(file: Path, group: str) -> list[str]:
    """The keys of the option that a command takes of a group unless told, with their comments."""
    entries = (entry for path in (file, *_parents(file)) for entry in _defaults(path))
    chosen = [entry[group] for entry in entries if isinstance(entry, dict) and group in entry]
    option = conf_dir() / group / f"{chosen[0] if chosen else None}.yaml"
    if not option.is_file() or group == "method":  # methods choose options of other groups
        return []
    parents: list[tuple[int, str]] = []
    found = []
    for match in filter(None, map(KEY_LINE.fullmatch, option.read_text().splitlines())):
        indent, value = len(match["indent"]), match["value"]
        parents = [*(parent for parent in parents if parent[0] < indent), (indent, match["key"])]
        if value and not value.startswith(("#", "${")):
            found.append(".".join([group, *(name for _, name in parents)]) + f": {value}")
    return found


@cache
def _defaults(file: Path) -> list[Any]:
    """A file's list of defaults, read once: parsing takes most of the time of a command's help."""
    found: list[Any] = yaml.safe_load(file.read_text()).get("defaults", [])
    return found


def groups_of(file: Path) -> set[str]:
    """The groups in a command's defaults list; those of a command it builds on included."""
    used: set[str] = set()
    for path in (file, *_parents(file)):
        for entry in _defaults(path):
            if isinstance(entry, dict):
                used |= {key.removeprefix("override ").partition("@")[0] for key in entry}
    return used


def _where(group: str) -> str:
    return "  (source=[…] and targets=[…])" if group == "dataset" else ""


def description(file: Path, *, whole: bool = False) -> str:
    """The first comment of a file of conf/: its first sentence, or the whole for a command."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("# @package")]
    comment: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    text = " ".join(comment)
    if whole:
        return text.split(": ", 1)[-1]
    return text.split(". ")[0].removesuffix(".")


def shared_keys(file: Path) -> list[str]:
    """The lines of the files of keys that a command builds on."""
    return [line for path in sorted(_parents(file)) for line in own_keys(path)]


def _parents(file: Path) -> set[Path]:
    """Every file of keys that a command builds on."""
    names = [entry.partition("@")[0] for entry in _defaults(file) if isinstance(entry, str)]
    paths = [path for name in names if (path := conf_dir() / f"{name}.yaml").is_file()]
    return {*paths, *(parent for path in paths for parent in _parents(path))}


def own_keys(file: Path) -> list[str]:
    """The lines after the defaults list, without Hydra's."""
    own = file.read_text().split("- _self_", 1)[-1].split("\nhydra:", 1)[0].splitlines()
    return [line for line in own if line.strip()]


COMPLETION_FLAGS = ("-sc", "--shell-completion")
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
