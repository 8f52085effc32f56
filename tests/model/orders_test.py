#!/usr/bin/env python3
"""Promise: every memory order in the protocol's code that is stronger than relaxed is needed: relaxed alone, it breaks a
promise of the model that orders.txt names for it. Those that no model can show stand there with the reason.

usage: orders_test.py SOURCE MODEL...            runs the table, and prints it with places
       orders_test.py --search SOURCE MODEL...   prints a new table: tries models and efforts, which takes long
"""

import pathlib
import re
import signal
import subprocess
import sys

SEARCH = sys.argv[1] == "--search"
SOURCE = pathlib.Path(sys.argv[1 + SEARCH])
MODELS = {pathlib.Path(path).name.removesuffix("_model"): path for path in sys.argv[2 + SEARCH :]}
TABLE = SOURCE / "tests/model/orders.txt"
FOLDERS = ("shm", "client", "daemon")
STRONG = re.compile(r"memory_order_(acquire|release|acq_rel|seq_cst)|= heavy_fence\(\);|^ +light_fence\(\);")
APART = "apart: "
# How hard to look, the cheapest first. With --exhaust every schedule with so many preemptions is tried.
EFFORTS = (
    "--exhaust 1",
    "--exhaust 1 --membarrier",
    "--iterations 20000",
    "--iterations 20000 --membarrier",
    "--exhaust 2",
)
SEARCH_PATIENCE_S = 10
PATIENCE_S = 240


def strong_orders():
    """[(file, line number, the line)] of the code."""
    found = []
    for folder in FOLDERS:
        for path in sorted((SOURCE / folder).rglob("*")):
            if path.suffix in (".h", ".cc"):
                for number, line in enumerate(path.read_text().splitlines(), 1):
                    if STRONG.search(line.partition("//")[0]):
                        found.append((str(path.relative_to(SOURCE)), number, line.strip()))
    return found


def read_table():
    """{(file, the line): what shows each of them, in their order in the file}"""
    table = {}
    for number, line in enumerate(TABLE.read_text().splitlines(), 1):
        if line and not line.startswith("#"):
            parts = line.split(" | ")
            if len(parts) != 3:
                sys.exit(f"{TABLE}:{number}: want: file | line of code | model and effort, or `{APART}` and the reason")
            table.setdefault((parts[0], parts[1]), []).append(parts[2])
    return table


def goes_red(model, effort, place, patience_s):
    command = [MODELS[model], *effort.split(), "--weaken", f"{place}=relaxed"]
    try:
        status = subprocess.run(command, capture_output=True, timeout=patience_s).returncode
    except subprocess.TimeoutExpired:
        return False
    if status not in (0, 1, -signal.SIGSEGV):
        sys.exit(f"{' '.join(command)}: exit status {status}")
    return status != 0  # a promise is broken, or the code trips over what it finds


def search():
    reached = {}
    for model, path in MODELS.items():
        out = subprocess.run([path, "--places", "--iterations", "2000"], capture_output=True, text=True, check=True).stdout
        reached[model] = {line.partition("=")[0] for line in out.splitlines()}
    table = read_table()
    for file, number, line in strong_orders():
        place = f"{file}:{number}"
        known = table.get((file, line), [])
        entry = known.pop(0) if known else ""
        if not entry.startswith(APART):
            tries = ((model, effort) for effort in EFFORTS for model in MODELS if place in reached[model])
            entry = next((" ".join(pair) for pair in tries if goes_red(*pair, place, SEARCH_PATIENCE_S)), APART + "?")
        print(f"{file} | {line} | {entry}", flush=True)


def run_table():
    # A model that fails on the code as it is would show everything to be needed.
    for path in MODELS.values():
        if subprocess.run([path, "--iterations", "100"], capture_output=True).returncode != 0:
            sys.exit(f"{path}: fails on the code as it is")
    table = read_table()
    failures = []
    for file, number, line in strong_orders():
        place = f"{file}:{number}"
        entries = table.get((file, line))
        if not entries:
            failures.append(f"{place}: stands not in orders.txt: {line}")
            continue
        entry = entries.pop(0)
        print(f"{place:32} {entry}", flush=True)
        if not entry.startswith(APART) and not goes_red(*entry.split(" ", 1), place, PATIENCE_S):
            failures.append(f"{place}: relaxed, and {entry} does not notice: {line}")
    failures += [f"orders.txt: no such line any more: {file} | {line}" for (file, line), left in table.items() if left]
    if failures:
        sys.exit("\n".join(failures))


search() if SEARCH else run_table()
