"""What the site needs beside the pages of docs/: MkDocs calls the functions named `on_…`.

Links of a page are written for the repository. Those to other pages of the site are kept. Files
beside them, such as tests and benchmarks, are linked at `repo_url` if mkdocs.yml names one, and
otherwise named. The project's own pages and the keys of the command line are added.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from crane.cli.help import EXAMPLES, description, groups_of, own_keys, shared_keys
from crane.cli.validation import groups
from crane.config import conf_dir

ROOT = Path(__file__).resolve().parents[1]
PROJECT = {
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CHANGELOG.md": "project/changes.md",
}
"""Files at the top of the repository to their page."""
COMMAND_LINE = "reference/command_line.md"
LINK = re.compile(r"\[([^\]]+)\]\(([^():#\s]+)(#[^()\s]*)?\)")
"""A link to another file: its text, path and anchor."""
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the project's pages and the keys of the command line."""
    for name, uri in PROJECT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=text))
    files.append(File.generated(config, COMMAND_LINE, content="\n".join(command_line())))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write links as the site needs them, and indent nested lists as Python-Markdown expects."""
    origins = {uri: name for name, uri in PROJECT.items()}
    origin = origins.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def rewritten(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        uri = PROJECT.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(uri) is not None:
            return f"[{text}]({posixpath.relpath(uri, page.file.src_uri + '/..')}{anchor})"
        if not (ROOT / path).exists():
            return link[0]  # strict builds end there
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/HEAD/{path}{anchor})"
        return text if path in text else f"{text} (`{path}` in the repository)"

    parts = FENCE.split(markdown)
    parts[::2] = [
        re.sub(r"^  (?=[-*] )", "    ", LINK.sub(rewritten, part), flags=re.MULTILINE)
        for part in parts[::2]
    ]
    return "".join(parts)


def command_line() -> Iterator[str]:
    """The page of commands, keys and options, as the files of conf/ give them."""
    yield "# Command line\n"
    yield (
        "Every command takes `KEY=VALUE`, and `GROUP=OPTION` where it has groups. "
        "`crane COMMAND --help` prints the same. Of an option, only the values that "
        "you want to change need to be typed: `GROUP.KEY=VALUE`.\n"
    )
    all_groups = groups()
    for command, examples in EXAMPLES.items():
        file = conf_dir() / f"{command}.yaml"
        text = description(file, whole=True)
        yield f"## crane {command}\n\n{text[0].upper()}{text[1:]}\n"
        yield "```sh\n" + "\n".join(examples) + "\n```\n"
        yield from _table("key", key_rows([*own_keys(file), *shared_keys(file)]))
        if used := sorted(groups_of(file) & set(all_groups)):
            yield f"Groups: {', '.join(f'[{name}](#{name})' for name in used)}.\n"
    yield "## Groups\n"
    for group, options in all_groups.items():
        yield f"### {group}\n"
        files = {name: conf_dir() / group / f"{name}.yaml" for name in options}
        yield from _table("option", [(name, "", description(file)) for name, file in files.items()])
        yield f'??? note "Values of {group}"\n'
        for name, file in files.items():
            text = file.read_text(encoding="utf-8").rstrip()
            code = f'```yaml title="conf/{group}/{name}.yaml"\n{text}\n```\n'
            yield "".join(f"    {line}\n" for line in code.splitlines())


def key_rows(lines: list[str]) -> list[tuple[str, str, str]]:
    """Key, default and comment of each line of YAML; nested keys in full.

    >>> key_rows(["a: 1  # one", "b:  # two", "  c: null", "  _target_: d"])
    [('a', '1', 'one'), ('b', '', 'two'), ('b.c', 'null', '')]
    """
    rows, above = [], {0: ""}
    for line in lines:
        found = re.fullmatch(r"( *)([\w/]+):\s*(.*?)(?:\s+# (.*)|\s*# (.*))?", line)
        if found and not found[2].startswith("_"):
            depth, name = len(found[1]), above.get(len(found[1]), "") + found[2]
            above[depth + 2] = name + "."
            rows.append((name, found[3], found[4] or found[5] or ""))
    return rows


def _table(head: str, rows: list[tuple[str, str, str]]) -> Iterator[str]:
    """A table of Markdown; the column of defaults is left out where none has one."""
    if not rows:
        return
    has_default = any(default for _, default, _ in rows)
    yield f"| {head} | {'default | ' * has_default}what it is |"
    yield f"| --- | {'--- | ' * has_default}--- |"
    for name, default, text in rows:
        middle = f"{f'`{default}`' if default else ''} | " * has_default
        yield f"| `{name}` | {middle}{text.replace('|', chr(92) + '|')} |"
    yield ""
