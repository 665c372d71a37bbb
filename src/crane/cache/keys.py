"""The name of a cache entry: checksums of everything that decides the frozen features."""

import ast
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from crane.errors import UsageError
from crane.files import sha256, write_text

FORMAT = 1
"""Format of an entry's files; a new number makes all older entries stale."""

NUM_THREADS = 4
"""Files hashed at the same time; hashing releases Python's global lock."""

PLACES = ("weights_dir", "allow_download")
"""Keys that say where weights are, not which."""

DigestFiles = Callable[[Path, Sequence[Path]], list[str]]
"""From a folder and files in it to their checksums."""


def entry_id(facts: Mapping[str, Any]) -> str:
    """The name of the entry that facts describe: 16 hexadecimal digits.

    >>> entry_id({"a": 1, "b": [2]}) == entry_id({"b": [2], "a": 1}) != entry_id({"a": 1, "b": [3]})
    True
    """
    text = json.dumps({**facts, "format": FORMAT}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tower_facts(settings: Mapping[str, Any], digest: DigestFiles) -> dict[str, Any]:
    """A tower's settings with the checksum of its weights instead of their name.

    Random weights, or none, follow from the seed and the configuration, which stay; for others the
    seed is dropped. Code of torch.hub in a local folder is identified by its checksum, code from
    GitHub by its commit.

    Args:
        settings: Resolved settings of `backbone.model` or `guide.features`.
        digest: Computes checksums of files.
    """
    from crane.weights import RANDOM, weight_status, weights_needed  # imports torch

    facts = {key: value for key, value in settings.items() if key not in PLACES}
    if facts.get("weights", RANDOM) != RANDOM:
        folder = settings.get("weights_dir", ".")
        found = [weight_status(n, folder, verify=False).path for n in weights_needed(settings)]
        files = [path for path in found if path is not None and path.is_file()]
        facts["weights"] = [digest(path.parent, [path])[0] for path in files]
        facts.pop("seed", None)
    if facts.get("source") == "local":
        facts["repo_dir"] = code_digest([Path(facts["repo_dir"]).expanduser()])
    return facts


def images_digest(names: Iterable[str], digests: Iterable[str]) -> str:
    """One checksum of a data set's images, in any order.

    Labels and masks do not count: they are no input of the towers.

    Args:
        names: Names of the images, such as their paths below the data set's folder.
        digests: Checksums of their files.
    """
    lines = sorted(set(zip(names, digests, strict=True)))
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


class Digests:
    """The SHA-256 of files, remembered by path, size and modification time.

    Args:
        folder: Where the checksums are kept, in one small file for each folder of data.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, root: Path, files: Sequence[Path]) -> list[str]:
        """Checksums of files; only those of new and changed files are computed.

        Args:
            root: The folder to which the files belong, such as a data set's.
            files: The files, in any order, repeated or not.

        Raises:
            UsageError: A file is missing or cannot be read.
        """
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        memory = self.folder / f"{name}.json"
        known = _remembered(memory)
        states = {file: _state(file) for file in dict.fromkeys(files)}
        fresh = [file for file, state in states.items() if known.get(str(file), [])[:2] != state]
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            for file, digest in zip(fresh, pool.map(_digest, fresh), strict=True):
                known[str(file)] = [*states[file], digest]
        if fresh:
            with suppress(OSError):  # if the folder is read-only, files are read each time
                write_text(memory, json.dumps(known))
        return [str(known[str(file)][2]) for file in files]


def _remembered(memory: Path) -> dict[str, list[object]]:
    """The rows of a memory file that have the right form; one that cannot be read has none."""
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    rows = content.items() if isinstance(content, dict) else ()
    return {name: row for name, row in rows if _is_row(row)}


def _is_row(row: object) -> bool:
    """Whether this is a size, a modification time and a checksum."""
    return isinstance(row, list) and list(map(type, row)) == [int, int, str] and len(row[2]) == 64


def _state(file: Path) -> list[object]:
    try:
        status = file.stat()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    return [status.st_size, status.st_mtime_ns]


def _digest(file: Path) -> str:
    try:
        return sha256(file)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error


def code_digest(modules: Iterable[ModuleType | Path]) -> str:
    """Hash the code of modules, packages and folders without comments and docstrings.

    Cached features are stale once the code that computes them changes, and nobody would remember to
    raise a version number while trying out a new attention.

    Args:
        modules: Imported modules, packages (with all their modules) or folders, in any order.

    Returns:
        A SHA-256, the same for code that differs in comments, docstrings and layout only.
    """
    lines = set()
    for module in modules:
        for name, path in _code_files(module):
            lines.add(f"{name}\t{_code_file_digest(path, path.stat().st_mtime_ns)}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _code_files(module: ModuleType | Path) -> list[tuple[str, Path]]:
    """Python files with names that are the same on every machine."""
    if isinstance(module, Path):
        return [(p.relative_to(module).as_posix(), p) for p in module.rglob("*.py")]
    file = getattr(module, "__file__", None)
    if file is None:  # built in, or typed into an interpreter
        return []
    if not hasattr(module, "__path__"):
        return [(module.__name__, Path(file))]
    folder = Path(file).parent
    return [
        (f"{module.__name__}/{path.relative_to(folder).as_posix()}", path)
        for path in folder.rglob("*.py")
    ]


@cache
def _code_file_digest(path: Path, changed: int) -> str:
    del changed  # part of the cache's key: an edited file is read again
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            body[:1] = [] if len(body) > 1 else [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
