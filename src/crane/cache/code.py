"""What a piece of code does, as a checksum: comments and docstrings do not count."""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType


def code_digest(modules: Iterable[ModuleType | Path]) -> str:
    """Hash the code of modules, packages with all they hold, and folders of code.

    Cached features are stale once the code that computes them has changed, and nobody would think
    of raising a version number while trying an attention of their own.

    Args:
        modules: Imported modules or packages, or folders; in any order.

    Returns:
        A sha256, the same for code that differs in comments, docstrings and layout only.
    """
    lines = set()
    for module in modules:
        for name, path in _files(module):
            lines.add(f"{name}\t{_file_digest(path, path.stat().st_mtime_ns)}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _files(module: ModuleType | Path) -> list[tuple[str, Path]]:
    """Python files by a name that is the same on every machine."""
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
def _file_digest(path: Path, changed: int) -> str:
    del changed  # part of the key: an edited file is read anew
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
