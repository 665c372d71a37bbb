"""One name means one thing in the whole house."""

import ast
import re
from collections import Counter
from pathlib import Path

import crane

FILES = sorted(Path(crane.__file__).parent.rglob("*.py"))
COUNT = re.compile(r"(len\(.+\)|.*\bnum_(?!processes)\w+)$")
"""An expression that counts things; messages about processes concern two or more."""
PLURAL = re.compile(r" ([a-z]+ )?(?!anomalous|is\b|as\b)[a-z]+s\b")


def test_no_base_name_stands_for_two_modules():
    names = Counter(file.stem for file in FILES if not file.stem.startswith("__"))
    assert [name for name, number in names.items() if number > 1] == []


def test_no_class_name_stands_for_two_classes():
    names = Counter(
        node.name
        for file in FILES
        for node in ast.parse(file.read_bytes()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, number in names.items() if number > 1] == []


def test_types_are_shipped():
    assert (Path(crane.__file__).parent / "py.typed").is_file()


def test_counts_are_worded_by_one_helper():
    """`counted(1, "file")` knows its singular; `f"{len(files)} files"` would say "1 files"."""
    found = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_bytes())):
            if not isinstance(node, ast.JoinedStr):
                continue
            parts = [*node.values, None]
            for before, one, after in zip([None, *parts], parts, parts[1:], strict=False):
                if not isinstance(one, ast.FormattedValue) or not isinstance(after, ast.Constant):
                    continue
                counts, text = COUNT.match(ast.unparse(one.value)), after.value
                of = isinstance(before, ast.Constant) and before.value.endswith(
                    (" of ", " of the ", " and ")
                )
                if counts and not of and PLURAL.match(text):
                    found.append(f"{file.name}:{node.lineno} {ast.unparse(one.value)}{text[:30]}")
    assert found == []
