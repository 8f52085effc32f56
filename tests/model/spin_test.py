#!/usr/bin/env python3
"""Promise: whatever files, locks and transactions are like when a daemon or a server is killed, no count is lost and
none is counted twice (harvest.pml). And each step is needed for that, or stands apart in steps.txt with the reason.

usage: spin_test.py MODEL                       everything: within the bounds of RUNS, and without each step
       spin_test.py MODEL [STEP] [BOUND=N]...   one run; it tells the way to a promise that it finds broken
SPIN_MEMORY_MIB (1500) bounds the memory of each.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

MODEL = pathlib.Path(sys.argv[1]).resolve()
SOURCE = MODEL.read_text()
TABLE = MODEL.with_name("steps.txt")
STEPS = dict(re.findall(r"^#define (WITHOUT_\w+) \(without == (\d+)\)$", SOURCE, re.MULTILINE))
APART = "apart: "
# What the model counts up to by itself is too much at once: beside kills, one kind of mishap at a time.
RUNS = (
    "FAILURES=0 TROUBLES=0",
    "DAEMON_KILLS=1 TROUBLES=0",
    "DAEMON_KILLS=1 FAILURES=0 CALLS=1",
    "CLIENTS=2 CLIENT_KILLS=0 DAEMON_KILLS=1 FAILURES=0 TROUBLES=0 CALLS=1",
    "CONTROLS=2 CLIENT_KILLS=0 FAILURES=0 CALLS=1",
)
MEMORY_MIB = os.environ.get("SPIN_MEMORY_MIB", "1500")


def build(folder):
    options = ["-O2", "-w", "-DSAFETY", "-DCOLLAPSE", "-DNOFAIR", f"-DMEMLIM={MEMORY_MIB}"]
    for command, makes in (
        (["spin", "-a", str(MODEL)], "pan.c"),
        (["gcc", *options, "-o", "pan", "pan.c"], "pan"),
    ):
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        except FileNotFoundError:
            sys.exit(f"{command[0]} is not installed: tools/setup test")
        if not (folder / makes).exists():
            sys.exit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


class Run:
    """One exhaustive search. `broken` is the promise that does not hold, "" for none."""

    def __init__(self, folder, step, bounds):
        self.folder = folder
        self.name = f"{step} {bounds}".strip()
        self.environment = {**os.environ, "WITHOUT": STEPS.get(step, "0")}
        self.environment.update(bound.split("=") for bound in bounds.split())
        out = self.pan("-m20000", "-w24", "-n")
        broken = re.search(r"^pan:1: (?:assertion violated )?(.*) \(at depth", out, re.MULTILINE)
        stored = re.search(r"^ *(\S+) states, stored", out, re.MULTILINE)
        if not stored or "search depth too small" in out or ("Search not completed" in out and not broken):
            sys.exit(f"{self.name}: not searched to the end:\n{out}")
        self.broken = broken[1] if broken else ""
        times = re.findall(r"^happened: line (\d+), (\d+) times", out, re.MULTILINE)
        self.happened = {int(line): int(often) for line, often in times}
        states = int(float(stored[1]))
        print(f"{states:9} states  {self.name or 'its own bounds'}: {self.broken or 'every promise holds'}", flush=True)

    def pan(self, *arguments):
        done = subprocess.run(
            ["./pan", *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    def tell(self):
        told = self.pan("-r", f"{MODEL.name}.trail", "-S")
        print(*re.findall(r"^ *((?:client \d|daemon): .*)$", told, re.MULTILINE), sep="\n")


def read_table():
    table = {}
    for number, line in enumerate(TABLE.read_text().splitlines(), 1):
        if line and not line.startswith("#"):
            parts = [part.strip() for part in line.split("|")]
            if len(parts) != 3 or parts[0] in table:
                sys.exit(f"{TABLE}:{number}: want, once: step | bounds | promise, or `{APART}` and the reason")
            table[parts[0]] = parts[1:]
    return table


def failures_of_the_model(folder):
    runs = [Run(folder, "", bounds) for bounds in RUNS]
    failures = [f"{run.name}: {run.broken}" for run in runs if run.broken]
    for number, text in enumerate(SOURCE.splitlines(), 1):
        if "HAPPENS" in text and not text.startswith("#define"):
            times = sum(run.happened.get(number, 0) for run in runs)
            print(f"{times:9} times   {MODEL.name}:{number}: {text.strip()}")
            if times == 0:
                failures.append(f"{MODEL.name}:{number}: never happens")
    return failures


def failures_without_steps(folder):
    table = read_table()
    failures = [f"{step}: not in both {MODEL.name} and {TABLE.name}" for step in sorted(table.keys() ^ STEPS.keys())]
    for step, (bounds, wanted) in table.items():
        if step in STEPS:
            run = Run(folder, step, bounds)
            if run.broken != ("" if wanted.startswith(APART) else wanted):
                failures.append(f"{run.name}: {run.broken or 'every promise holds'}; {TABLE.name} says: {wanted}")
    return failures


def run_one(folder, arguments):
    steps = [argument for argument in arguments if argument in STEPS]
    bounds = [argument for argument in arguments if re.fullmatch(r"[A-Z_]+=\d+", argument)]
    if len(steps) > 1 or len(steps) + len(bounds) != len(arguments):
        sys.exit(__doc__)
    run = Run(folder, "".join(steps), " ".join(bounds))
    if run.broken:
        run.tell()
        sys.exit(1)


with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    build(scratch)
    if sys.argv[2:]:
        run_one(scratch, sys.argv[2:])
    else:
        failed = failures_of_the_model(scratch) + failures_without_steps(scratch)
        if failed:
            sys.exit("\n".join(failed))
