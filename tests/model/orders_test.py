#!/usr/bin/env python3
"""Promise: every memory order in the protocol's code that is stronger than relaxed is needed: relaxed alone, it breaks a
promise of some model. Those that no model can show stand in orders_apart.txt, each with the reason.

usage: orders_test.py SOURCE MODEL...      prints the table of orders and models, and fails when an order is in neither
"""

import pathlib
import re
import signal
import subprocess
import sys

SOURCE = pathlib.Path(sys.argv[1])
MODELS = sys.argv[2:]
FOLDERS = ("shm", "client", "daemon")
STRONG = re.compile(r"memory_order_(acquire|release|acq_rel|seq_cst)|= heavy_fence\(\);")
# How hard to look, the cheapest first. With one preemption every schedule and every value that a load may return is
# tried; a model that takes longer than that is left to chance.
EFFORTS = (
    ("--exhaust", "1"),
    ("--exhaust", "1", "--membarrier"),
    ("--iterations", "20000"),
    ("--iterations", "20000", "--membarrier"),
    ("--exhaust", "2"),
)
PATIENCE_S = 5


def name_of(model):
    return pathlib.Path(model).name.removesuffix("_model")


def strong_orders():
    """{FILE:LINE: the line} of the code."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((SOURCE / folder).rglob("*")):
            if path.suffix not in (".h", ".cc"):
                continue
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if STRONG.search(line.partition("//")[0]):
                    found[f"{path.relative_to(SOURCE)}:{number}"] = line.strip()
    return found


def places(model):
    out = subprocess.run([model, "--places", "--iterations", "2000"], capture_output=True, text=True, check=True).stdout
    return {place for place, _, _ in (line.partition("=") for line in out.splitlines())}


def catches(models, place, efforts):
    """The name of the first model that a promise of breaks, or None."""
    for effort in efforts:
        for model in models:
            command = [model, *effort, "--weaken", f"{place}=relaxed"]
            try:
                status = subprocess.run(command, capture_output=True, timeout=PATIENCE_S).returncode
            except subprocess.TimeoutExpired:
                continue
            if status == 1 or status == -signal.SIGSEGV:  # a promise is broken, or the code trips over what it finds
                return name_of(model)
            if status != 0:
                sys.exit(f"{' '.join(command)}: exit status {status}")
    return None


def set_apart():
    """{(file, the line's text): reason}"""
    entries = {}
    path = SOURCE / "tests/model/orders_apart.txt"
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line and not line.startswith("#"):
            parts = line.split(" | ")
            if len(parts) != 3:
                sys.exit(f"{path}:{number}: want: file | line of code | reason")
            entries[parts[0], parts[1]] = parts[2]
    return entries


def main():
    orders = strong_orders()
    apart = set_apart()
    reached = {model: places(model) for model in MODELS}
    failures = []
    for place, line in orders.items():
        reason = apart.pop((place.rpartition(":")[0], line), None)
        caught = catches([model for model in MODELS if place in reached[model]], place, EFFORTS[:3] if reason else EFFORTS)
        print(f"{place:34} {caught or ('apart: ' + reason if reason else 'NO MODEL')}", flush=True)
        if caught and reason:
            failures.append(f"{place}: a model catches it: take it out of orders_apart.txt")
        if not caught and not reason:
            failures.append(f"{place}: relaxed, and no model notices: {line}")
    failures += [f"orders_apart.txt: no such line any more: {file} | {line}" for file, line in apart]
    print(f"{len(orders)} orders stronger than relaxed")
    if failures:
        sys.exit("\n".join(failures))


main()
