"""`crane weights`: the weight files that a configuration needs, and which of them are present.

Where its method's authors publish checkpoints is said too.
"""

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from crane.config import plain
from crane.errors import UsageError
from crane.named_prompts import MINI, PUBLISHED_BACKBONE, prompt_names
from crane.weights import (
    PRESENT,
    WRONG_CHECKSUM,
    WeightStatus,
    hub_code_address,
    hub_code_folder,
    is_hub_code,
    weight_status,
    weights_needed,
)


def weights(config: DictConfig) -> None:
    """List the weight files that a configuration needs, and verify those present.

    Raises:
        UsageError: Some are missing or damaged.
    """
    names = weights_needed(plain(config))
    console = Console(highlight=False)
    published = config.method.get("checkpoints", "not known")
    console.print(f"[bold]checkpoint[/bold]: {escape(published)}", soft_wrap=True)
    for name in _named_prompts(config):
        _print_status(console, weight_status(name, config.weights_dir), str(config.weights_dir))
    if not names:
        console.print("This configuration needs no weight files; all its weights are random.")
        return
    statuses = [weight_status(name, config.weights_dir) for name in names]
    for status in statuses:
        _print_status(console, status, str(config.weights_dir))
    absent = [status.name for status in statuses if status.state != PRESENT]
    if absent:
        is_damaged = any(status.state == WRONG_CHECKSUM for status in statuses)
        delete = "delete those with a wrong checksum; " if is_damaged else ""
        raise UsageError(
            f"{len(absent)} of {len(names)} weight files are missing or damaged: "
            f"{', '.join(absent)}; {delete}with allow_download=true (the default) missing files "
            "are downloaded on first use",
        )


def _named_prompts(config: DictConfig) -> list[str]:
    """The names of published prompts of this method and backbone, for `checkpoint=NAME`."""
    if config.backbone.model.architecture != PUBLISHED_BACKBONE:
        return []
    method = config.method.name.lower().replace("+", "_plus")
    names = (name for name in prompt_names() if name != MINI)
    return [name for name in names if name.rpartition("_")[0] == method]


def _print_status(console: Console, status: WeightStatus, folder: str) -> None:
    is_present = status.state == PRESENT
    colour = "green" if is_present else "red"
    checked = ""
    if status.verified:
        checked = ", sha256 verified" if is_present else "; delete this file"
    console.print(f"[bold]{escape(status.name)}[/bold]: [{colour}]{status.state}[/]{checked}")
    for name, value in _facts(status, folder):
        console.print(f"  {name:<10} {escape(value)}", soft_wrap=True)


def _facts(status: WeightStatus, folder: str) -> list[tuple[str, str]]:
    facts = [("at", str(status.path))] if status.path else [("put it in", folder)]
    if status.path is None and is_hub_code(status.name):
        place = hub_code_folder(status.name)
        facts = [
            ("from", hub_code_address(status.name)),
            ("put it in", f"{place.parent}, with the unpacked folder renamed to {place.name}"),
            ("or", "guide.features.source=local guide.features.repo_dir=UNPACKED_FOLDER"),
        ]
    entry = status.entry
    if entry is not None:
        facts += [
            ("file", " or ".join(entry.files)),
            ("from", entry.source),
            ("sha256", entry.sha256 or "not published"),
            ("size", f"about {entry.size_mb} MB" if entry.size_mb else "not known"),
            ("licence", entry.licence),
        ]
    return facts
