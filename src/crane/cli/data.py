"""`crane data`: list, verify, prepare and look at data sets."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from crane.cli.arguments import ACTIONS
from crane.cli.validation import groups
from crane.config import compose, plain
from crane.data import Index, index_auto, index_folder, index_meta_json
from crane.data.loader import auto_num_workers
from crane.data.meta_json import META_NAME
from crane.datasets import Card
from crane.datasets.archives import unpack
from crane.datasets.finding import candidate_folders, check_is_set
from crane.datasets.preparation import read_splits, write_images, write_meta
from crane.datasets.statistics import measure, picture
from crane.datasets.verification import Verification, faults_by_kind, verify
from crane.errors import UsageError
from crane.files import shown_path as shown
from crane.gate import build

MAX_SHOWN = 20
"""Faults of one kind that are printed; the number of the others is."""

RIGHT = ("classes", "normal", "anomalous")
"""Columns of numbers."""

Reader = partial[Index]
"""What an option of the group `dataset` builds, short of being called."""


def data(config: DictConfig) -> None:
    """Do one action on the data sets named."""
    actions: dict[str, Callable[[DictConfig, Console], None]] = dict(
        zip(ACTIONS, (list_sets, verify_sets, prepare_sets, show_statistics), strict=True)
    )
    if config.action not in actions:
        raise UsageError(f"one of {', '.join(ACTIONS)}", config.action, key="action")
    if config.action != "list" and not config.targets:
        raise UsageError(f"crane data {config.action} NAME", "no name", key="targets")
    actions[config.action](config, Console(highlight=False))


def list_sets(config: DictConfig, console: Console) -> None:
    """Print the catalogue, or all that is known of the data sets named."""
    if config.targets:
        for name, reader in _readers(config.targets).items():
            _print_card(console, name, reader.keywords)
        return
    every = compose(
        "data", ["action=list", f"dataset@targets=[{','.join(groups()['dataset'])}]"]
    ).targets
    known = {name: node for name, node in every.items() if "card" in node}
    table = Table(title="Published data sets")
    for column in ("name", "domain", "classes", "normal", "anomalous", "masks", "folder"):
        table.add_column(column, justify="right" if column in RIGHT else "left")
    for name, node in known.items():
        table.add_row(*_row(str(name), node, Path(config.datasets_dir)))
    console.print(table)
    console.print(
        "Images of split test. ? is from memory. crane data list NAME says more; "
        f"folders are looked for in {escape(str(config.datasets_dir))} (datasets_dir)."
    )


def _row(name: str, node: DictConfig, datasets_dir: Path) -> list[str]:
    card: Card = build(node.card, f"targets.{node.name}.card")
    totals, mark = None, ""
    for counts in reversed(card.of("test")):
        if counts.totals is not None:
            totals, mark = counts.totals, "?" if counts.evidence == "memory" else ""
    folders = candidate_folders(datasets_dir, list(node.folders))
    return [
        name,
        card.domain,
        str(len(card.class_names)),
        *(["-", "-"] if totals is None else [f"{number}{mark}" for number in totals]),
        "yes" if card.has_masks else "no",
        escape(shown(folders[0])) if folders else "-",
    ]


def _print_card(console: Console, name: str, keywords: dict[str, Any]) -> None:
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
        "get it": keywords["fetch"],
        "folders": ", ".join(keywords["folders"]),
        "cite": card.citation,
    }
    for counts in card.counts:
        totals = counts.totals
        number = f"{counts.num_images} images"
        if totals is not None:
            number = f"{totals[0]} normal and {totals[1]} anomalous images"
        fact = f"{number} ({counts.evidence}: {counts.source})"
        facts[f"split {counts.split}"] = "; ".join(
            filter(None, (facts.get(f"split {counts.split}"), fact))
        )
    for key, value in facts.items():
        console.print(f"  {key:<14} {escape(value)}", soft_wrap=True)


def verify_sets(config: DictConfig, console: Console) -> None:
    """Verify each data set; a mistake of the user if any is faulty."""
    faulty = []
    for name, reader in _readers(config.targets).items():
        with _quiet(), _progress(console) as bars:
            found = verify(
                name,
                reader,
                reader.keywords["split"],
                reader.keywords.get("card"),
                fast=config.fast,
                num_workers=_num_workers(config),
                advance=bars,
            )
        _print_verification(console, found, fast=config.fast)
        if found.faults:
            faulty.append(f"{name} has {len(found.faults)}")
    if faulty:
        raise UsageError("data sets without faults", ", ".join(faulty))


def _print_verification(console: Console, found: Verification, *, fast: bool) -> None:
    table = Table(title=f"{found.name} at {found.root}" if found.root else found.name)
    for column in ("split", "class", "normal", "anomalous", "masks", "published", "known by"):
        table.add_column(column, justify="left" if column in ("split", "class") else "right")
    for one in found.counts:
        numbers = (one.num_normal, one.num_anomalous)
        expected = ("-", "-")
        if one.expected is not None:
            right = numbers == one.expected[:2]
            colour = "green" if right else "red"
            expected = (f"[{colour}]{one.expected[0]} + {one.expected[1]}[/]", one.expected[2])
        cells = (*map(str, numbers), str(one.num_masks))
        table.add_row(one.split, escape(one.class_name), *cells, *expected)
    if found.counts:
        console.print(table)
    for kind, texts in faults_by_kind(found.faults).items():
        for text in texts[:MAX_SHOWN]:
            console.print(f"[red]{kind}[/red] {escape(text)}", soft_wrap=True)
        if len(texts) > MAX_SHOWN:
            console.print(f"[red]{kind}[/red] and {len(texts) - MAX_SHOWN} more")
    for remark in found.remarks:
        console.print(f"[yellow]remark[/yellow] {escape(remark)}", soft_wrap=True)
    opened = "no file was opened (--fast)" if fast else f"{found.num_opened} images were opened"
    state = "[red]not[/red] verified" if found.faults else "[green]verified[/green]"
    console.print(f"{escape(found.name)} {state}; {opened}")
    if found.fingerprint is not None:
        console.print(f"fingerprint {found.fingerprint}", soft_wrap=True)


def prepare_sets(config: DictConfig, console: Console) -> None:
    """Unpack the archive if one is given, then list the files beside them."""
    readers = _readers(config.targets)
    if len(readers) > 1 and (config.archive is not None or config.write_images is not None):
        raise UsageError("one name with archive or write_images", ", ".join(readers))
    for name, reader in readers.items():
        if config.archive is not None:
            _unpack(config, console, reader)
        keywords = reader.keywords
        # The files themselves are read, not a list of them that lies there already.
        read = partial(reader, meta=None) if "meta" in keywords else reader
        with _quiet():
            indices = read_splits(read, keywords["split"], keywords.get("card"))
        root = indices[keywords["split"]].root
        path = root / (keywords.get("meta") or META_NAME)
        is_new = write_meta(indices, path, overwrite=config.overwrite)
        state = "written" if is_new else "there already, and the same"
        numbers = [f"{len(index.samples)} images of {split}" for split, index in indices.items()]
        console.print(f"{escape(shown(path))} {state}: {', '.join(numbers)}", soft_wrap=True)
        for text in dict.fromkeys(text for index in indices.values() for text in index.mismatches):
            console.print(f"[yellow]not as published[/yellow] {escape(text)}", soft_wrap=True)
        if config.write_images is not None:
            folder = Path(config.write_images).expanduser()
            with _progress(console) as bars:
                write_images(indices, folder, partial(bars, "images written"))
            console.print(f"{escape(shown(folder))} written", soft_wrap=True)
        console.print(f"next: crane data verify {escape(name)}")


def _unpack(config: DictConfig, console: Console, reader: Reader) -> None:
    keywords = reader.keywords
    if "folders" not in keywords and reader.func not in (index_auto, index_folder, index_meta_json):
        raise UsageError("a data set that has an archive", keywords["name"], key="archive")
    place = keywords.get("root") or Path(keywords["datasets_dir"]) / keywords["folders"][0]
    folder, archive = Path(place).expanduser(), Path(config.archive).expanduser()
    check = None
    if "folders" in keywords:
        known = {key: keywords[key] for key in ("split", "layouts", "card", "fetch")}
        check = partial(check_is_set, keywords["name"], **known)
    with _quiet(), _progress(console) as bars:
        is_new = unpack(archive, folder, lambda a, b: bars("MB", a >> 20, b >> 20), check)
    state = "unpacked" if is_new else "unpacked before"
    console.print(f"{escape(shown(folder))} {state}", soft_wrap=True)


def show_statistics(config: DictConfig, console: Console) -> None:
    """Print a table of each data set and write its picture."""
    for name, reader in _readers(config.targets).items():
        index = reader()
        with _progress(console) as bars:
            statistics = measure(index, _num_workers(config), partial(bars, "images"))
        table = Table(title=f"{name}, split {reader.keywords['split']}")
        for column in ("class", "images", "masks", "size", "regions", "their areas"):
            table.add_column(column, justify="left" if column == "class" else "right")
        for class_name, one in statistics.items():
            areas = "-" if one.areas is None else "  ".join(f"{100 * a:.3g}%" for a in one.areas)
            images = f"{one.num_normal} + {one.num_anomalous}"
            cells = (images, str(one.num_masks), one.size, str(len(one.shares)), areas)
            table.add_row(escape(class_name), *cells)
        console.print(table)
        console.print("Images: normal + anomalous. Areas of regions: smallest, median, largest.")
        path = Path(config.run_dir) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(index, statistics).save(path)
        console.print(f"picture {escape(shown(path))}", soft_wrap=True)


def _readers(targets: DictConfig) -> dict[str, Reader]:
    """Build the data sets named short of reading them."""
    return {
        name: build({**node, "_partial_": True}, f"targets.{name}")
        for name, node in plain(targets).items()
    }


def _num_workers(config: DictConfig) -> int:
    return auto_num_workers(1) + 1 if config.num_workers == "auto" else int(config.num_workers)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the warnings of `crane.data`, where a report says the same at more length."""
    logger = logging.getLogger("crane.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each kind of thing that is counted."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        yield advance
