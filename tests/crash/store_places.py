#!/usr/bin/env python3
"""Lists the daemon's stores into shared memory, as the sources have them.

usage: store_places.py OUTPUT ROOT FILE...     a line each: file:line | code

Not in it are a header's plain fields and the seeds: they are written into files that have no name yet, of which
whoever comes after a kill sees no more than that the system calls around them were made.
"""

import pathlib
import re
import sys

STORE = re.compile(
    r"(\.|->)(store|exchange|fetch_\w+|compare_exchange_\w+)\("  # atomics
    r"|(?<!void )\bwrite_plain\("
    r"|\bat\.(digest\[\d\]|tag) = "  # plain words of a slot
)


def main():
    output, root, *files = sys.argv[1:]
    lines = []
    for name in files:
        path = pathlib.Path(name)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if STORE.search(line.partition("//")[0]):
                lines.append(f"{path.resolve().relative_to(pathlib.Path(root).resolve())}:{number} | {line.strip()}")
    pathlib.Path(output).write_text("".join(f"{line}\n" for line in lines))


main()
