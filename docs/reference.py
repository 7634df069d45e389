"""Makes docs/configuration.md from the code: keys and defaults from `clew config`, words from the doc
comments of the settings' types.

    python docs/reference.py BINARY          writes it
    python docs/reference.py BINARY --check  fails if it is not current
"""

import os
import pathlib
import re
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"

STRUCT = re.compile(r"((?:^ *///[^\n]*\n)*)(?:^#\[[^\n]*\]\n)*^pub(?:\(crate\))? struct (\w+) \{\n(.*?)^\}",
                    re.DOTALL | re.MULTILINE)
FIELD = re.compile(r"((?:^ *///[^\n]*\n)*)((?:^ *#\[[^\n]*\]\n)*)^ *pub(?:\(crate\))? (\w+): ([^\n]+),$",
                   re.MULTILINE)

KINDS = {"Bytes": "size", "Span": "duration", "bool": "true or false", "String": "text",
         "Secret": "secret", "Vec<String>": "list of texts", "f64": "number"}

HEAD = """# Configuration

Every setting with its default, made from the code by `python docs/reference.py BINARY`.

A setting comes from, the later the stronger:

1. its default,
2. the YAML file (`--config FILE`),
3. the variable `CLEW_…`: the key in capitals with `_` for `.`, as `CLEW_INGESTER_FLUSH_AGE_MAX`,
4. `--set key=value`, and the flags for addresses and folders (`clew serve --help`).

Unknown keys and values that cannot be are errors that name the key. `clew config` prints what is in
effect, with secrets hidden; `/status/config` does so for a running process.

Durations are written as `250ms`, `90s`, `1m30s`, `2h`, `14d`; sizes as `64MiB`, `1GiB`, `500kB` or a
number of bytes. `data_dir` is the only setting that one node alone needs in production; a cluster needs
`metastore.members`, `bucket.url`, and a name and address of each node ([operations](operations.md)).
"""


def words(comment):
    return " ".join(line.strip().removeprefix("///").strip() for line in comment.splitlines()).strip()


def structs(path):
    found = {}
    for _, name, body in STRUCT.findall(path.read_text()):
        found[name] = {field: (words(told), kind) for told, _, field, kind in FIELD.findall(body)}
    return found


def sources(crate):
    for place in ("services", "libs"):
        folder = ROOT / place / crate / "src"
        if folder.exists():
            return folder
    raise SystemExit(f"there is no crate {crate}")


def resolve(kind, path):
    """The file and name of a type, if it is one of settings."""
    crate, name = path, kind
    if "::" in kind:
        first, *modules, name = kind.split("::")
        folder = sources(first.removeprefix("clew_"))
        files = [folder / f"{modules[-1]}.rs"] if modules else sorted(folder.rglob("*.rs"))
    else:
        files = [crate]
    for file in files:
        if name in structs(file):
            return file, name
    return None


def documented():
    """What every key means: key -> (words, type)."""
    out = {}

    def walk(path, name, prefix):
        for field, (told, kind) in structs(path)[name].items():
            key = f"{prefix}{field}"
            below = None if kind in KINDS or kind in ("usize", "u32", "u64") else resolve(kind, path)
            if below:
                walk(*below, f"{key}.")
            else:
                out[key] = (told, kind)

    walk(ROOT / "services" / "clew" / "src" / "config.rs", "Config", "")
    return out


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def page(binary):
    env = {key: value for key, value in os.environ.items() if not key.startswith("CLEW_")}
    done = subprocess.run([binary, "config"], capture_output=True, text=True, check=True, env=env)
    known = documented()
    lines, section = [HEAD], None
    for key, default in leaves(yaml.safe_load(done.stdout)):
        if key not in known or not known[key][0]:
            raise SystemExit(f"{key} has no doc comment")
        told, kind = known[key]
        top = key.split(".")[0] if "." in key else ""
        if top != section:
            section = top
            lines.append(f"\n## {top or 'The process'}\n\n| key | default | type | what |\n|---|---|---|---|")
        kind = KINDS.get(kind, "whole number" if re.fullmatch(r"[iu](size|\d+)", kind) else "word")
        if isinstance(default, list):
            kind = "list"
            default = "[" + ", ".join(map(str, default)) + "]"
        shown = {True: "true", False: "false"}.get(default, default) if isinstance(default, bool) else default
        shown = f"`{shown}`" if shown != "" else "empty"
        cell = told.replace("|", "\\|")
        lines.append(f"| `{key}` | {shown} | {kind} | {cell} |")
    return "\n".join(lines) + "\n"


def main():
    binary = sys.argv[1]
    text = page(binary)
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text() != text:
            raise SystemExit(f"not current, run python docs/reference.py {binary}")
    else:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
