"""What the report says of `serving`: its targets, and the section "While the daemon works"."""

import report_reasons

# Table in serving's JSON -> (heading, what the figures are).
TABLES = {
    "switch": ("Calls around a switch", "One call of one thread, timed alone"),
    "hot": ("One hot key", "Mean time of a call of each thread, and its ratio to one thread alone"),
    "pair": (
        "Beside another process",
        "Keys a second of all processes that validate or hash, and the ratio to one that does it alone",
    ),
    "build": ("A build", "From asking for room to the publication; CPU time is the builder's thread"),
    "build_throughput": ("Throughput during it", "Keys a second of the one process, medians"),
    "revocation": ("Revocations", "From the beginning of the change"),
    "sweep": ("Flushing counts", "CPU time of the flusher's thread; its share of a core at a flush a second"),
    "load": (
        "The first load of a key store",
        "SQLite; the scan takes all columns of the same rows, on one thread, and leaves them",
    ),
    "load_memory": ("Memory of a first load", "Anonymous memory at its highest, over what it was before"),
    "harvest": ("The end of a generation", "CPU time of the flusher's thread, once a superseded generation is unused"),
    "store": (
        "Revocations in a key store",
        "SQLite: from the commit, and from the beginning, to the last call of any process that accepted the key",
    ),
    "store_histogram": ("The same as a histogram", "How many took so long from the commit"),
}

METHOD = """\
`serving` runs the daemon's publisher, builder, flusher and usage store on the daemon's threads, and processes that
validate beside them; keys are made without a source. Every verdict was compared with the right one, and every count
with the number of answers; no key was accepted by a call that began after its revocation had returned. *Around* are
calls within 20 to 40 ms of a publication or a switch, *apart* all others, during builds mostly. *Among counted*: all
keys beside the active ones were counted before. A revocation is *made* when the publisher returns; *last accepted* is
the beginning of the last call that accepted the key, 0 when it was before the change's; *loop late* is what other work
of the loop adds. *Beside another process*: hashing shares no memory, and so shows what the CPUs have in common; the floor
of two that validate is the ratio of two that hash, and that of one beside the writer the ratio beside a writer of
another table. *In a key store* are apikeyd, apikeyctl and a program that knows nothing but SQLite, each as it is, on a
database on disk; two processes present the key. A commit is seen by a connection of its own, and counts from the last
look that did not see it. On few CPUs the highest figures show the scheduler.

What is repeated has three rounds, in which the cases take turns; of ratios beside another process there are nine. A
switch is one call in a hundred thousand or fewer, so no percentile of the calls *around* shows it; those *at a switch*
stand by themselves, and a percentile of a few is their worst. Revocations without a build take longer than
those during one; between them the CPUs idle, and whether it is that was not measured.
"""

HEADS = {
    "what": "",
    "p50_ns": "p50, ns",
    "p99_ns": "p99, ns",
    "p99_9_ns": "p99.9, ns",
    "max_ns": "worst, ns",
    "p99_ratio": "p99 / that without a build",
    "call_ns": "ns a call",
    "cpu_ms": "CPU, ms",
    "worst_cpu_ms": "worst, ms",
    "share_percent": "% of a core",
    "cpu_seconds": "CPU, s",
    "wall_seconds": "s",
    "wall_ratio": "s / scan's",
    "cpu_ratio": "CPU / scan's",
    "private_mib": "private, MiB",
    "worst_seconds": "worst, s",
    "keys_per_s": "keys a second",
    "before_keys_per_s": "before",
    "during_keys_per_s": "during",
    "more": "20 ms or more",
} | {f"below_{ms}_ms": f"below {ms} ms" for ms in (1, 2, 5, 10, 20)}

# (what the table of targets calls it, serving's table, its row, the figure, how many of the figure's are one
# unit, at most or at least, what). `{keys}` is the row's.
WRITER = "one process beside a writer of 100 000 changes/s / alone"
TARGETS = (
    ("two processes / one, {keys} keys", "pair", "small table, 2 processes", "ratio", 1, "≥", 1.9),
    ("two processes / one, {keys} keys", "pair", "large table, 2 processes", "ratio", 1, "≥", 1.9),
    (WRITER + ", {keys} keys", "pair", "small table, beside the writer", "ratio", 1, "≥", 0.95),
    (WRITER + ", {keys} keys", "pair", "large table, beside the writer", "ratio", 1, "≥", 0.95),
    ("a flush a second, 1 000 active keys, % of a core", *("sweep", "active", "share_percent", 1, "≤", 1)),
    (
        "the same among keys counted before, % of a core",
        *("sweep", "active among counted", "share_percent", 1, "≤", 1),
    ),
    (
        "a revocation during a build until it is made, p99, ms",
        *("revocation", "during a build, made", "p99_ns", 1e6, "≤", 1),
    ),
    (
        "the same until no call accepts the key, p99, ms",
        *("revocation", "during a build, last accepted", "p99_ns", 1e6, "≤", 1),
    ),
    ("first load from SQLite / scanning its rows, time", *("load", "load", "wall_ratio", 1, "≤", 2)),
    ("the daemon's private memory meanwhile, MiB", *("load_memory", "load", "private_mib", 1, "≤", 190)),
    (
        "revoked in SQLite by the tool, from its commit until no process accepts the key, p99, ms",
        *("store", "by the tool, commit", "p99_ns", 1e6, "≤", 20),
    ),
    ("the same by a foreign program, p99, ms", *("store", "by a foreign program, commit", "p99_ns", 1e6, "≤", 20)),
)


def targets(raw):
    """(what, the value or None without serving, its quartiles or None, at most or at least, what, the floor or None, what
    a miss is made of)."""
    for what, table, name, figure, unit, sign, bound in TARGETS:
        if raw is None:
            yield what.replace("{keys} keys", name.partition(",")[0]), None, None, sign, bound, None, ""
        else:
            row = next(row for row in raw["tables"][table] if row["what"] == name)
            what = what.format(keys=cell(row["keys"])) if "keys" in row else what
            spread = (row["lower_quartile"], row["upper_quartile"]) if "lower_quartile" in row else None
            floor = row.get("floor") or None
            yield what, row[figure] / unit, spread, sign, bound, floor, report_reasons.of_a_writer(row, figure)


def cell(value):
    if isinstance(value, str):
        return value
    if value == int(value) or abs(value) >= 100:
        return f"{round(value):,}".replace(",", " ")
    return f"{value:.3g}"


def section(raw, table):
    """The section's parts; `table` makes a table of Markdown. None of it without serving."""
    if raw is None:
        return []
    clock = raw["clock"]
    parts = [
        "## While the daemon works",
        METHOD.strip(),
        f"{cell(raw['keys'])} keys ({cell(raw['switch_keys'])} for switches), {raw['cpus']} CPUs; two readings of the"
        f" clock ({clock['name']}) differ by {clock['step_ns']:.1f} ns or more.",
    ]
    for name, rows in raw["tables"].items():
        heading, words = TABLES[name]
        heads = [HEADS.get(head, head.replace("_", " ")) for head in rows[0]]
        parts += [f"### {heading}", f"{words}.", table(heads, [[cell(value) for value in row.values()] for row in rows])]
    return parts
