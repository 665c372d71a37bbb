"""`crane data`: list, verify, prepare and look at data sets."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from crane.checks import NonNegativeInt, check_value, one_of
from crane.config import conf_dir, plain
from crane.data.index import Index
from crane.datasets import candidate_folders, check_is_set
from crane.datasets.card import Card
from crane.errors import UsageError, counted
from crane.files import shown_path
from crane.gate import build
from crane.terminal import WholeTable

if TYPE_CHECKING:
    from crane.datasets.verification import Verification

MAX_SHOWN = 20
"""Faults of one kind that are printed; of the others only the number is."""

VALUES = {
    "fast": bool,
    "num_workers": NonNegativeInt | Literal["auto"],
    "archive": str | None,
    "overwrite": bool,
    "write_images": str | None,
}
"""Keys of the command and what they may be."""

Reader = partial[Index]
"""What an option of the group `dataset` builds, before it is called."""


def data(config: DictConfig) -> None:
    """Run one action on the named data sets."""
    actions: Mapping[str, Callable[[DictConfig, Console], None]] = {
        "list": list_sets,
        "verify": verify_sets,
        "prepare": prepare_sets,
        "stats": show_statistics,
    }
    one_of(config.action, actions, "action", "action")
    for key, annotation in VALUES.items():
        check_value(config[key], annotation, key)
    if config.action != "list" and not config.targets:
        raise UsageError(f"name a data set: crane data {config.action} NAME", key="targets")
    actions[config.action](config, Console(highlight=False))


def list_sets(config: DictConfig, console: Console) -> None:
    """Print the catalogue, or everything known of the named data sets."""
    if config.targets:
        for name, reader in _readers(config.targets).items():
            _print_card(console, name, reader.keywords)
        return
    columns = ("name", "domain", "classes", "normal", "anomalous", "masks", "folder")
    table = WholeTable(
        columns, title="Published data sets", right=("classes", "normal", "anomalous")
    )
    # Composing every option would take a second.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted((conf_dir() / "dataset").glob("*.yaml")):
        node = yaml.load(path.read_text(encoding="utf-8"), loader)[path.stem]
        if node.get("card"):
            table.add_row(*_row(path.stem, node, Path(config.datasets_dir)))
    console.print(table)
    console.print(
        "Numbers of images are of split test; those with ? are from memory. Folders are looked for "
        f"in {escape(str(config.datasets_dir))} (datasets_dir). More: crane data list NAME"
    )


def _row(name: str, node: Mapping[str, Any], datasets_dir: Path) -> list[str]:
    card: Card = build(node["card"], f"targets.{name}.card")
    numbers = ["-", "-"]
    for counts in reversed(card.of("test")):
        if counts.totals is not None:
            mark = "?" if counts.evidence == "memory" else ""
            numbers = [f"{number}{mark}" for number in counts.totals]
    folders = candidate_folders(datasets_dir, node.get("folders") or [name])
    masks = "yes" if card.has_masks else "no"
    folder = escape(shown_path(folders[0])) if folders else "-"
    return [name, card.domain, str(len(card.class_names)), *numbers, masks, folder]


def _print_card(console: Console, name: str, keywords: Mapping[str, Any]) -> None:
    console.print(f"[bold]{escape(name)}[/bold]")
    card: Card | None = keywords.get("card")
    if card is None:
        console.print("  not a published data set")
        return
    facts = {
        "title": card.title,
        "domain": card.domain,
        "classes": ", ".join(card.class_names),
        "masks": "yes" if card.has_masks else "no",
        "normal images": "yes" if card.has_normals else "no, so image metrics are not defined",
        "in the tables": ", ".join(card.table_rows) or "no",
        "size": card.size,
        "licence": card.licence,
        "page": card.page,
        "get it": keywords.get("fetch") or "not known",
        "folders": ", ".join(keywords.get("folders") or [name]),
        "cite": card.citation,
    }
    for split in card.splits():
        facts[f"split {split}"] = "; ".join(
            (f"{c.totals[0]} normal and {c.totals[1]} anomalous" if c.totals else f"{c.num_images}")
            + f" images ({c.evidence}: {c.source})"
            for c in card.counts
            if c.split == split
        )
    for key, value in facts.items():
        console.print(f"  {key:<14} {escape(value)}", soft_wrap=True)


def verify_sets(config: DictConfig, console: Console) -> None:
    """Verify each data set; a mistake of the user if any is faulty."""
    from crane.datasets.verification import verify

    faulty = []
    for name, reader in _readers(config.targets).items():
        with _progress(console) as advance:
            found = verify(
                name,
                reader,
                reader.keywords["split"],
                reader.keywords.get("card"),
                fast=config.fast,
                num_workers=_num_workers(config),
                advance=advance,
            )
        _print_verification(console, found, fast=config.fast)
        if found.faults:
            faulty.append(f"{name} has {len(found.faults)}")
    if faulty:
        raise UsageError(f"some data sets have faults: {', '.join(faulty)}")


def _print_verification(console: Console, found: "Verification", *, fast: bool) -> None:
    columns = ("split", "class", "normal", "anomalous", "masks", "published", "known by")
    title = f"{found.name} at {found.root}" if found.root else found.name
    table = WholeTable(columns, title=escape(title), right=columns[2:])
    for one in found.counts:
        published, evidence = "-", "-"
        if one.expected is not None:
            *numbers, evidence = one.expected
            colour = "green" if numbers == [one.num_normal, one.num_anomalous] else "red"
            published = f"[{colour}]{numbers[0]} + {numbers[1]}[/]"
        cells = map(str, (one.num_normal, one.num_anomalous, one.num_masks))
        table.add_row(one.split, escape(one.class_name), *cells, published, evidence)
    if found.counts:
        console.print(table)
    for kind, texts in found.faults_by_kind().items():
        for text in texts[:MAX_SHOWN]:
            console.print(f"[red]{kind}[/red] {escape(text)}", soft_wrap=True)
        if len(texts) > MAX_SHOWN:
            console.print(f"[red]{kind}[/red] and {len(texts) - MAX_SHOWN} more")
    for line in found.lines:
        console.print(f"{escape(found.name)} {escape(line)}", soft_wrap=True)
    for remark in found.remarks:
        console.print(f"[yellow]remark[/yellow] {escape(remark)}", soft_wrap=True)
    opened = (
        "no file was opened (--fast)"
        if fast
        else f"{counted(found.num_opened, 'image was', 'images were')} opened"
    )
    state = "[red]not[/red] verified" if found.faults else "[green]verified[/green]"
    console.print(f"{escape(found.name)} {state}; {opened}")
    if found.fingerprint is not None:
        console.print(f"fingerprint {found.fingerprint}", soft_wrap=True)


def prepare_sets(config: DictConfig, console: Console) -> None:
    """Unpack the archive if there is one, then write a list beside the files."""
    from crane.data.meta_json import META_NAME
    from crane.datasets.preparation import read_splits, write_images, write_meta

    readers = _readers(config.targets)
    if len(readers) > 1 and (config.archive is not None or config.write_images is not None):
        key = "archive" if config.archive is not None else "write_images"
        raise UsageError(f"{key} takes one data set, not {', '.join(readers)}", key=key)
    for name, reader in readers.items():
        if config.archive is not None:
            _unpack(config, console, reader)
        keywords = reader.keywords
        # The files themselves are read, not an existing list of them.
        read = partial(reader, meta=None) if "meta" in keywords else reader
        with _quiet():
            indices = read_splits(read, keywords["split"], keywords.get("card"))
        path = indices[keywords["split"]].root / (keywords.get("meta") or META_NAME)
        is_new = write_meta(indices, path, overwrite=config.overwrite)
        state = "written" if is_new else "unchanged"
        numbers = [
            f"{counted(len(index.samples), 'image')} of {split}" for split, index in indices.items()
        ]
        console.print(f"{escape(shown_path(path))} {state}: {', '.join(numbers)}", soft_wrap=True)
        for text in dict.fromkeys(text for index in indices.values() for text in index.mismatches):
            console.print(f"[yellow]not as published[/yellow] {escape(text)}", soft_wrap=True)
        if config.write_images is not None:
            folder = Path(config.write_images).expanduser()
            with _progress(console) as advance:
                write_images(indices, folder, partial(advance, "images written"))
            console.print(f"{escape(shown_path(folder))} written", soft_wrap=True)
        console.print(f"next: crane data verify {escape(name)}")


def _unpack(config: DictConfig, console: Console, reader: Reader) -> None:
    from crane.data import index_folder, index_meta_json
    from crane.datasets.preparation import unpack

    keywords = reader.keywords
    known: dict[str, Any] = {
        k: keywords.get(k) for k in ("name", "split", "layouts", "card", "fetch")
    }
    checks: dict[str, Any] = {}
    if "layouts" in keywords:
        checks["check"] = partial(check_is_set, **known)
    elif reader.func not in (index_folder, index_meta_json):
        raise UsageError(f"{keywords['name']} has no archive", key="archive")
    names = keywords.get("folders") or [keywords["name"]]
    place = keywords.get("root") or Path(keywords["datasets_dir"]) / names[0]
    folder, archive = Path(place).expanduser(), Path(config.archive).expanduser()
    with _quiet(), _progress(console) as advance:
        is_new = unpack(archive, folder, lambda a, b: advance("MB", a >> 20, b >> 20), **checks)
    state = "unpacked" if is_new else "already unpacked"
    console.print(f"{escape(shown_path(folder))} {state}", soft_wrap=True)


def show_statistics(config: DictConfig, console: Console) -> None:
    """Print a table of each data set and write its picture."""
    from crane.datasets.statistics import measure, picture

    columns = ("class", "images", "masks", "size", "regions", "their areas")
    for name, reader in _readers(config.targets).items():
        index = reader()
        with _progress(console) as advance:
            statistics = measure(index, _num_workers(config), partial(advance, "images"))
        title = f"{name}, split {reader.keywords['split']}"
        table = WholeTable(columns, title=escape(title), right=columns[1:])
        for class_name, one in statistics.items():
            areas = "  ".join(f"{100 * area:.3g}%" for area in one.area_range or ()) or "-"
            images = f"{one.num_normal} + {one.num_anomalous}"
            cells = (images, str(one.num_masks), one.size, str(len(one.areas)), areas)
            table.add_row(escape(class_name), *cells)
        console.print(table)
        console.print("Images: normal + anomalous. Areas of regions: smallest, median, largest.")
        path = Path(config.run_dir) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(index, statistics).save(path)
        console.print(f"picture {escape(shown_path(path))}", soft_wrap=True)


def _readers(targets: DictConfig) -> dict[str, Reader]:
    """Build the named data sets without reading them."""
    return {
        name: build({**node, "_partial_": True}, f"targets.{name}")
        for name, node in plain(targets).items()
    }


def _num_workers(config: DictConfig) -> int:
    from crane.data.loader import auto_num_workers

    return auto_num_workers(1) + 1 if config.num_workers == "auto" else config.num_workers


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings of `crane.data` while a report says the same in more detail."""
    logger = logging.getLogger("crane.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar for each kind of thing that is counted."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        yield advance
