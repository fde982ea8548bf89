#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Counts lines and unsafe blocks by folder.

counts.py --write  writes Documentation/counts.rst
counts.py --check  says whether that file is what --write would make it

Counted are the files git knows or would add.  A line is one that is neither
blank nor only a comment; code below ``#[cfg(test)]`` and in folders named
``tests`` counts as test.  An unsafe block is ``unsafe {``, an unsafe item
``unsafe fn``, ``unsafe impl``, ``unsafe trait`` or ``unsafe extern``, outside
comments.
"""

import argparse
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
TARGET = TOP / "Documentation" / "counts.rst"
FOLDERS = [
    "rust/virtio",
    "rust/prm",
    "rust/bindings",
    "rust/vdpa",
    "rust/hardware",
    "drivers/mlx5",
    "samples/vdpa_net",
    "selftests",
    "tools/mlx5-model",
    "tools/vdpa-relay",
    "tools/testbed",
]
LANGUAGES = {".rs": "Rust", ".c": "C", ".h": "C", ".py": "Python", ".sh": "shell"}
COMMENT = {"Rust": ("//",), "C": ("//", "/*", "*"), "Python": ("#",), "shell": ("#",)}

HEAD = """.. SPDX-License-Identifier: GPL-2.0

=======
Counted
=======

Lines and ``unsafe`` by folder, as ``tools/testbed/counts.py`` counts them
(its head says what a line is). ``make doc`` brings this page up to date and
``make lint`` fails when it is not.

"""


def files():
    """Every file git knows or would add, by path."""
    out = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=TOP, check=True, capture_output=True, text=True,
    ).stdout
    return sorted({pathlib.PurePath(line) for line in out.splitlines()})


def count(path, language):
    """(lines, test lines, unsafe blocks, other unsafe items) of one file."""
    code = tests = blocks = items = 0
    in_tests = "tests" in path.parts[:-1] or path.name == "tests.rs"
    for line in (TOP / path).read_text().splitlines():
        text = line.strip()
        if text == "#[cfg(test)]":
            in_tests = True
        if not text or text.startswith(COMMENT[language]):
            continue
        if in_tests:
            tests += 1
        else:
            code += 1
        if language == "Rust":
            text = re.sub(r'"(\\.|[^"\\])*"', '""', text).split("//")[0]
            blocks += len(re.findall(r"\bunsafe\s*\{", text))
            items += len(re.findall(r"\bunsafe\s+(fn|impl|trait|extern)\b", text))
    return code, tests, blocks, items


def table():
    """The page."""
    rows = {}
    for path in files():
        language = LANGUAGES.get(path.suffix)
        folder = next((f for f in FOLDERS if str(path).startswith(f + "/")), None)
        if language is None or folder is None or not (TOP / path).is_file():
            continue
        key = (FOLDERS.index(folder), folder, language)
        rows[key] = [a + b for a, b in zip(rows.get(key, [0] * 4), count(path, language))]
    out = [HEAD, ".. list-table::\n   :header-rows: 1\n\n"]
    cells = [["folder", "language", "lines", "test lines", "unsafe blocks", "other unsafe items"]]
    for (_, folder, language), numbers in sorted(rows.items()):
        unsafe = [str(n) for n in numbers[2:]] if language == "Rust" else ["", ""]
        cells.append([f"``{folder}``", language, str(numbers[0]), str(numbers[1])] + unsafe)
    for row in cells:
        out += [f"   {'*' if i == 0 else ' '} - {cell}".rstrip() + "\n" for i, cell in enumerate(row)]
    return "".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write Documentation/counts.rst")
    what.add_argument("--check", action="store_true", help="fail if it is not up to date")
    page = table()
    if parser.parse_args().write:
        TARGET.write_text(page)
    elif not TARGET.exists() or TARGET.read_text() != page:
        sys.exit("Documentation/counts.rst is not up to date: run make doc")


if __name__ == "__main__":
    main()
