"""`crane weights` and `crane cache`: files of weights and cached features on this machine."""

import time
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from rich.console import Console
from rich.filesize import decimal as size_text
from rich.markup import escape

from crane.cache import BrokenEntryError, CacheFolder, Entry, age_text
from crane.checks import one_of
from crane.cli.arguments import CACHE_ACTIONS
from crane.config import plain
from crane.errors import UsageError, counted
from crane.named_prompts import MINI, PUBLISHED_BACKBONE, prompt_names
from crane.terminal import WholeTable

if TYPE_CHECKING:
    from crane.weights import WeightStatus

DAY = 86400.0


def weights(config: DictConfig) -> None:
    """List the weight files that a configuration needs, and verify those present.

    Raises:
        UsageError: Some are missing or damaged.
    """
    # torch, which the cache does without
    from crane.weights import PRESENT, WRONG_CHECKSUM, weight_status, weights_needed

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


def _print_status(console: Console, status: "WeightStatus", folder: str) -> None:
    from crane.weights import PRESENT

    is_present = status.state == PRESENT
    colour = "green" if is_present else "red"
    checked = ""
    if status.verified:
        checked = ", sha256 verified" if is_present else "; delete this file"
    console.print(f"[bold]{escape(status.name)}[/bold]: [{colour}]{status.state}[/]{checked}")
    for name, value in _facts(status, folder):
        console.print(f"  {name:<10} {escape(value)}", soft_wrap=True)


def _facts(status: "WeightStatus", folder: str) -> list[tuple[str, str]]:
    from crane.weights import hub_code_address, hub_code_folder, is_hub_code

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


def cache(config: DictConfig) -> None:
    """List the entries of the cache, or remove some."""
    one_of(config.action, CACHE_ACTIONS, "action", "action")
    folder, console = CacheFolder(config.folder), Console(highlight=False)
    if config.action == "list":
        list_entries(folder, console)
    else:
        prune(config, folder, console)


def list_entries(folder: CacheFolder, console: Console) -> None:
    """Print each entry, the last used first, and the total size."""
    columns = ("entry", "data set", "images", "size", "used")
    table = WholeTable(columns, right=("images", "size"))
    entries, broken = _split(folder)
    for entry in sorted(entries, key=lambda entry: entry.last_used, reverse=True):
        about = entry.description
        table.add_row(
            f"{entry.id}\n[dim]{escape(about.vision)}, {about.dtype}[/dim]",
            escape(about.data_set),
            str(entry.num_images),
            size_text(entry.num_bytes),
            _ago(entry),
        )
    if entries:
        console.print(table)
    for name, error in broken.items():
        console.print(f"[yellow]damaged[/yellow] {name}: {escape(str(error))}", soft_wrap=True)
    total = size_text(sum(entry.num_bytes for entry in entries))
    number = counted(len(entries), "entry", "entries")
    console.print(f"{number}, {total} in {escape(str(folder.path))}", soft_wrap=True)
    if leftovers := folder.leftovers():
        console.print(
            f"{counted(len(leftovers), 'leftover')} of interrupted runs; crane cache prune removes "
            f"{'it' if len(leftovers) == 1 else 'them'}"
        )


def prune(config: DictConfig, folder: CacheFolder, console: Console) -> None:
    """Remove the entries chosen, damaged entries and leftovers of interrupted runs.

    Raises:
        UsageError: There is no entry with that name.
    """
    entries, broken = _split(folder)
    known = {entry.id: entry for entry in entries}
    for name in config.entries:
        one_of(name, [*known, *broken], "entry", "entries")
    chosen = {name: known.get(name) for name in [*broken, *config.entries]}
    if config.unused_days is not None:
        oldest = time.time() - config.unused_days * DAY
        chosen |= {entry.id: entry for entry in entries if entry.last_used < oldest}
    if config.max_gb is not None:
        chosen |= {entry.id: entry for entry in _beyond(entries, config.max_gb * 1e9)}
    for name, entry in chosen.items():
        size = "damaged" if entry is None else size_text(entry.num_bytes)
        if folder.remove(name):
            console.print(f"removed {name}, {size}")
        else:
            console.print(f"[yellow]kept[/yellow] {name}: a run is writing it")
    num_leftovers = folder.clean()
    if num_leftovers:
        console.print(f"removed {counted(num_leftovers, 'leftover')} of interrupted runs")
    if not chosen and not num_leftovers:
        console.print("nothing to remove; choose entries by name, unused_days=… or max_gb=…")


def _split(folder: CacheFolder) -> tuple[list[Entry], dict[str, BrokenEntryError]]:
    """The intact entries, and the errors of the damaged ones by name."""
    every = dict(folder.entries())
    whole = [entry for entry in every.values() if isinstance(entry, Entry)]
    return whole, {n: e for n, e in every.items() if isinstance(e, BrokenEntryError)}


def _beyond(entries: list[Entry], num_bytes: float) -> list[Entry]:
    """The least recently used entries that must go for the others to fit."""
    total, going = sum(entry.num_bytes for entry in entries), []
    for entry in sorted(entries, key=lambda entry: entry.last_used):
        if total <= num_bytes:
            break
        total -= entry.num_bytes
        going.append(entry)
    return going


def _ago(entry: Entry) -> str:
    age = age_text(time.time() - entry.last_used)
    return age if age == "just now" else f"{age} ago"
