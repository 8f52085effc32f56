"""What the report says: figures out of micro's JSON, the targets, the tables and what the plots show."""

import itertools
import statistics

import report_reasons
import report_serving

PEER_KEYS_MAX = 1_000_000  # as micro_peers.h
LARGE_KEYS_MIN = 1_000_000  # of smaller tables the headers weigh
BYTES_A_KEY_MAX = 112
DRAWS = {
    "hit_uniform": "known, uniform",
    "hit_zipf": "known, Zipf 0.99",
    "miss": "unknown",
    "mixed_95_5": "95% known",
}
BATCHES = (1, 2, 4, 8, 16, 32, 64)
LIMITS = {
    "rate": "one rate",
    "owners_rate": "one rate, shared by all keys of an owner",
    "rate_and_quota": "a rate and a monthly quota",
}
LIMITED_KEYS_MAX = 1_000_000  # as micro_validate.cc
LIMIT_NS_MAX = 25
PERCENTILES = {"p50_ns": "50", "p90_ns": "90", "p99_ns": "99", "p99_9_ns": "99.9", "p99_99_ns": "99.99"}

# (what it is called here, its benchmarks' name without _key or _digest, single or pipelined)
PEERS = (
    ("boost::unordered_flat_map", "map", "single"),
    ("std::unordered_map", "std", "single"),
    ("LMDB", "lmdb", "single"),
    ("SQLite, immutable", "sqlite", "single"),
    ("SQLite, sees changes", "sqlite_live", "single"),
    ("memcached, 16 pipelined", "memcached", "pipeline16"),
    ("memcached", "memcached", "single"),
    ("Redis, 16 pipelined", "redis", "pipeline16"),
    ("Redis", "redis", "single"),
)

METHOD = """\
One thread presents keys of the native form (54 bytes) in an order that was made before timing, and compares every
answer with the right one; a wrong one would have ended the run. libapikey gives the full verdict and counts it. All
benchmarks are in one process; their repetitions are interleaved at random. Figures are ns a key: CPU time of the
thread, for servers wall-clock time. Each is the median of the repetitions with their quartiles. Only ratios of one run
mean much: on a virtual machine absolute figures move by a fifth from run to run. A ratio is that of the medians; its
quartiles are those of the ratios of all pairs of repetitions.

Single calls may overlap in the processor; *dependent* ones do not, since the next key is chosen by the last answer.

Peers hold the same keys with a row of 16 bytes (expiry, owner, state), once under the plaintext ('index only': they do
less than libapikey, and keep secrets) and once under the SHA-256 of the key, computed at each call by libapikey's
kernel. None of them counts.

- Hash maps are private to the process: no other process sees or changes them.
- LMDB: a file in tmpfs with full pages, `MDB_RDONLY`; the read transaction is reset and renewed after every 16 lookups.
  Without that it would see no change, ever; at every lookup it would pay for more.
- SQLite: a file in tmpfs, `WITHOUT ROWID`, prepared statement, mapped. *Immutable* takes no locks and never notices a
  change; *sees changes* is a write-ahead log, where each lookup finds what was committed before it.
- Redis and memcached: on this host, Unix socket, persistence off, one connection. *Pipelined*: 16 requests are sent
  before the first answer is read. memcached gets the digest in hexadecimal, since its keys are text; it has one table
  for all sizes. Their quartiles lie far apart where the scheduler had both processes on one core at times and on two at
  others, one of which it had to wake.
"""

LIMITS_METHOD = """\
The limits never refuse in a run, so each answer takes from all of them: one compare-and-swap a limit. What several
processes cost each other that take from one key's rate stands under *One hot key*.
"""

PERCENTILES_METHOD = """\
A call of tens of ns is timed in groups, so these are percentiles of a group's mean, which hides part of what a single
slow call takes; a round trip to a server is timed alone. Each is accurate to 3%, and the median of the repetitions. The
highest show interrupts and the scheduler as much as what is measured.
"""


def grouped(number):
    return f"{number:,}".replace(",", " ")


def nanoseconds(value):
    return f"{value:.1f}" if value < 100 else grouped(round(value))


class Ratio:
    """Of two benchmarks' times: that of the medians, and the quartiles of all pairs of repetitions."""

    def __init__(self, above, below):
        self.median = statistics.median(above) / statistics.median(below)
        self.low, _, self.high = statistics.quantiles([a / b for a, b in itertools.product(above, below)], n=4)

    @staticmethod
    def number(value):
        return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}" if value >= 0.001 else f"{value:.5f}"

    def cells(self):
        return f"{self.number(self.median)} | {self.number(self.low)} to {self.number(self.high)}"


class Difference:
    """Of two benchmarks' times in ns, in the same way."""

    def __init__(self, above, below):
        self.median = statistics.median(above) - statistics.median(below)
        self.low, _, self.high = statistics.quantiles([a - b for a, b in itertools.product(above, below)], n=4)

    def cells(self):
        return f"{self.median:.1f} | {self.low:.1f} to {self.high:.1f}"


class Value:
    """Of one run of `serving`, which tells the quartiles of some."""

    def __init__(self, value, quartiles=None):
        self.median = value
        self.low, self.high = quartiles or (None, None)

    def cells(self):
        spread = "" if self.low is None else f" {Ratio.number(self.low)} to {Ratio.number(self.high)}"
        return f"{Ratio.number(self.median)} |{spread}"


class Figures:
    """Times of a key in ns by the benchmark's name, one a repetition; and why there are none.

    `context` is what micro says of itself and the machine; `serving` is what that program wrote, or None."""

    def __init__(self, raw, sizes, missing_servers, shown, serving=None):
        self.context = raw["context"]
        self.serving = serving
        self.sizes = sizes
        self.missing_servers = missing_servers
        self.shown = {name.removesuffix("/real_time") for name in shown}
        self.times = {}
        self.counters = {}
        for run in raw["benchmarks"]:
            if run["run_type"] != "iteration":
                continue
            name = run["run_name"].removesuffix("/real_time")
            if "each" in run:
                self.times.setdefault(name, []).append(run["each"] * 1e9)
            self.counters.setdefault(name, []).append(run)

    def __contains__(self, name):
        return name in self.times

    def median(self, name):
        return statistics.median(self.times[name]) if name in self.times else None

    def counter(self, name, counter):
        """The median over the repetitions, or None."""
        runs = self.counters.get(name)
        return statistics.median(run[counter] for run in runs) if runs else None

    def cell(self, name):
        if name not in self.times:
            return f"n/a: {self.why_not(name)}"
        low, middle, high = statistics.quantiles(self.times[name], n=4)
        return f"{nanoseconds(middle)} ({nanoseconds(low)} to {nanoseconds(high)})"

    def why_not(self, name):
        family, size = [*name.split("/"), ""][:2]
        peer = family.removesuffix("_key").removesuffix("_digest")
        if peer in self.missing_servers:
            return self.missing_servers[peer]
        if size.isdecimal() and int(size) not in self.sizes:
            return f"{grouped(int(size))} keys not asked for"
        if size.isdecimal() and peer in {row[1] for row in PEERS} - {"map"} and int(size) > PEER_KEYS_MAX:
            return f"no more than {grouped(PEER_KEYS_MAX)} keys"
        if peer == "lmdb" and name not in self.shown:
            return "built without liblmdb"
        return "left out by --only" if name in self.shown else "this machine has no such kernel"

    def sha256(self, way):
        """The name of the fastest kernel's benchmark: micro lists it first."""
        names = [name for name in self.times if name.startswith("sha256/") and name.endswith(f"/{way}/54")]
        names = [name for name in names if "/openssl" not in name]
        fast = [name for name in names if "/portable/" not in name]
        return (fast or names or [f"sha256/any/{way}/54"])[0]


def targets(figures):
    """(what, numerator, denominator, at most, the floor in place of the numerator, or of both, what a miss is made
    of)."""
    floor, batch_floor = "floor/{}/single", "floor/{}/batch16"
    hit, batch = "validate/{}/hit_uniform/single", "validate/{}/hit_uniform/batch16"
    one, pair = figures.sha256("single"), figures.sha256("pair")
    million = 1_000_000

    def by_hashing(above, below, least, words):
        return lambda: report_reasons.of_the_floor(figures, above, least, below, words)

    def by_peer(peer, bound):
        return lambda: report_reasons.of_a_peer(figures, floor.format(million), peer, bound)

    def by_lookup(size):
        return lambda: report_reasons.of_an_unknown_key(figures, size)

    above, least = hit.format(1000), floor.format(1000)
    what = "single call, 1 000 keys / one SHA-256"
    yield what, above, one, 1.25, least, by_hashing(above, one, least, "one SHA-256")
    for what, peer, bound in (
        ("boost::unordered_flat_map", "map", 0.5),
        ("LMDB", "lmdb", 1 / 10),
        ("SQLite, immutable,", "sqlite", 1 / 50),
        ("SQLite, sees changes,", "sqlite_live", 1 / 50),
        ("Redis, not pipelined,", "redis", 1 / 500),
    ):
        below = f"{peer}_key/{million}/hit_uniform/single"
        what = f"single call, 1 000 000 keys / {what} by plaintext"
        yield what, hit.format(million), below, bound, floor.format(million), by_peer(below, bound)
    # libapikey's table stands on 2 MiB pages, which the daemon sees to; a map's heap does not by itself.
    small = f"validate_4k/{million}/hit_uniform/single"
    what = "the same as with boost::unordered_flat_map, libapikey on 4 KiB pages too"
    reason = lambda: report_reasons.of_pages(figures, small, hit.format(million))  # noqa: E731
    yield what, small, f"map_key/{million}/hit_uniform/single", 0.5, None, reason
    for size, bound in ((1000, 1.25), (10_000_000, 2.2)):
        above, least = batch.format(size), batch_floor.format(size)
        what = f"batch of 16, {grouped(size)} keys / two-way SHA-256, each"
        yield what, above, pair, bound, least, by_hashing(above, pair, least, "SHA-256 by twos")
    for size in figures.sizes:
        what = f"unknown key / known one, single, {grouped(size)} keys"
        floors = (f"floor/{size}/miss", floor.format(size))
        yield what, f"validate/{size}/miss/single", hit.format(size), 1.0, floors, by_lookup(size)


def bytes_a_key(figures):
    """Of the largest table, all files together; None when it was not measured."""
    size = figures.sizes[-1]
    total = figures.counter(f"validate/{size}/hit_uniform/percentiles", "table_bytes")
    return total / size if total and size >= LARGE_KEYS_MIN else None


AT_MOST, AT_LEAST = "≤", "≥"


def keeps(value, sign, bound):
    return value <= bound if sign == AT_MOST else value >= bound


def floor_ratio(figures, floor, below):
    """None where it was not measured."""
    above, below = floor if isinstance(floor, tuple) else (floor, below)
    return figures.median(above) / figures.median(below) if above in figures and below in figures else None


def judged_targets(figures):
    """(what, the ratio or why there is none, at most or at least, what, the floor's ratio or None, held or not)."""
    for what, above, below, bound, floor, _ in targets(figures):
        absent = next((name for name in (above, below) if name not in figures), None)
        if absent:
            yield what, f"n/a: {figures.why_not(absent)}", AT_MOST, bound, None, None
        else:
            ratio = Ratio(figures.times[above], figures.times[below])
            least = floor_ratio(figures, floor, below)
            yield what, ratio, AT_MOST, bound, least, keeps(ratio.median, AT_MOST, bound)
    for size in (1000, LIMITED_KEYS_MAX):
        what = f"a key with one rate, ns more than one without limits, {grouped(size)} keys"
        added = added_by_limits(figures, size, "rate", "single")
        if added is None:
            why = figures.why_not(f"validate_limited/{size}/rate/single")
            yield what, f"n/a: {why}", AT_MOST, LIMIT_NS_MAX, None, None
        else:
            yield what, added, AT_MOST, LIMIT_NS_MAX, None, keeps(added.median, AT_MOST, LIMIT_NS_MAX)
    size = bytes_a_key(figures)
    what = "memory without limits, bytes a key, all files together"
    if size is None:
        yield what, f"n/a: fewer than {grouped(LARGE_KEYS_MIN)} keys", AT_MOST, BYTES_A_KEY_MAX, None, None
    else:
        yield what, Value(size), AT_MOST, BYTES_A_KEY_MAX, None, keeps(size, AT_MOST, BYTES_A_KEY_MAX)
    for what, value, quartiles, sign, bound, floor, _ in report_serving.targets(figures.serving):
        if value is None:
            yield what, "n/a: --serving not asked for", sign, bound, None, None
        else:
            yield what, Value(value, quartiles), sign, bound, floor, keeps(value, sign, bound)


def added_by_limits(figures, size, limits, way):
    """What a limited key costs more than one without limits; None where one of both was not measured."""
    limited, plain = f"validate_limited/{size}/{limits}/{way}", f"validate/{size}/hit_uniform/{way}"
    if limited not in figures or plain not in figures:
        return None
    return Difference(figures.times[limited], figures.times[plain])


def summary(figures):
    verdicts = [held for *_, held in judged_targets(figures)]
    return f"{verdicts.count(True)} targets held, {verdicts.count(False)} missed, {verdicts.count(None)} n/a"


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def targets_table(figures):
    rows = []
    for what, ratio, sign, bound, floor, held in judged_targets(figures):
        target = f"{sign} {Ratio.number(bound)}"
        least = "" if floor is None else Ratio.number(floor)
        if held is None:
            rows.append([what, ratio, "", target, least, ""])
        else:
            missed = "MISSED" if floor is None or keeps(floor, sign, bound) else "MISSED, beyond the floor"
            spread = ratio.low is not None and ratio.low <= bound <= ratio.high
            rows.append([what, ratio.cells(), target, least, ("held" if held else missed) + (", within the spread" if spread else "")])
    return table(["ratio", "median", "quartiles", "target", "floor", ""], rows)


def misses(figures):
    """What those that are missed are made of; empty when none is."""
    made_of = {what: reason for what, *_, reason in targets(figures)}
    made_of |= {what: lambda reason=reason: reason for what, *_, reason in report_serving.targets(figures.serving)}
    rows = []
    for what, ratio, _, bound, _, held in judged_targets(figures):
        if held is not False:
            continue
        parts = []
        if what in made_of:
            parts.append(made_of[what]())
        if ratio.low is None:
            parts.append("one figure of this run, without quartiles")
        elif ratio.low <= bound <= ratio.high:
            parts.append(f"the target lies between the quartiles, {Ratio.number(ratio.low)} and {Ratio.number(ratio.high)}")
        rows.append([what, "; ".join(filter(None, parts))])
    return f"### What the misses are made of\n\n{table(['missed', 'measured'], rows)}" if rows else ""


def validation_table(figures):
    def cells_of(name):
        return [figures.cell(name + way) for way in ("single", "dependent", "batch16")]

    rows = []
    for size in figures.sizes:
        for draw, words in DRAWS.items():
            name = f"validate/{size}/{draw}/"
            rows.append([grouped(size), words, *cells_of(name)])
        name = f"validate_4k/{size}/hit_uniform/"
        rows.append([grouped(size), "known, uniform, 4 KiB pages", *cells_of(name)])
    return table(["keys", "presented", "single", "dependent", "batch of 16"], rows)


def pages_table(figures):
    rows = []
    for size in figures.sizes:
        name = f"validate/{size}/hit_uniform/percentiles"
        total, huge = figures.counter(name, "table_bytes"), figures.counter(name, "huge_bytes")
        mib = [f"{value / 2**20:.1f}" for value in (total, huge)] if total else [f"n/a: {figures.why_not(name)}", ""]
        rows.append([grouped(size), *mib])
    return table(["keys", "table and counters, MiB", "of it on 2 MiB pages"], rows)


def batch_name(size, batch):
    return f"validate/{size}/hit_uniform/" + ("single" if batch == 1 else f"batch{batch}")


def batch_table(figures):
    rows = [
        [grouped(size), *(figures.cell(batch_name(size, batch)) for batch in BATCHES)] for size in figures.sizes
    ]
    return table(["keys", *(f"{batch}" for batch in BATCHES)], rows)


def limits_table(figures):
    rows = []
    for size in (size for size in figures.sizes if size <= LIMITED_KEYS_MAX):
        for limits, words in LIMITS.items():
            cells = []
            for way in ("single", "batch16"):
                added = added_by_limits(figures, size, limits, way)
                cells += [figures.cell(f"validate_limited/{size}/{limits}/{way}"), "" if added is None else f"{added.median:.1f}"]
            rows.append([grouped(size), words, *cells])
    return table(["keys", "limits of a key", "single", "more than without", "batch of 16", "more than without"], rows)


def blocks_table(figures):
    blocks = [
        ("one SHA-256 of a key", figures.sha256("single")),
        ("two interleaved, each", figures.sha256("pair")),
        ("the coarse clock", "clock_coarse"),
        ("the CPU's number", "cpu_number"),
        ("one locked add, its line at hand", "locked_add"),
        ("the checksum of a key, which only an unknown one pays for", "key_form_checksum"),
    ]
    for size in figures.sizes:
        blocks += [
            (f"one line of {grouped(size)} keys' slots, after another", f"line/{size}/dependent"),
            (f"floor of a single call, {grouped(size)} keys", f"floor/{size}/single"),
            (f"floor of an unknown key, {grouped(size)} keys", f"floor/{size}/miss"),
            (f"floor of a batch of 16, {grouped(size)} keys", f"floor/{size}/batch16"),
            (f"the same 32 keys of {grouped(size)} again and again, each", f"validate/{size}/hit_uniform/learnt"),
            ("the same 32 unknown keys", f"validate/{size}/miss/learnt"),
        ]
    return table(["building block", "ns"], [[words, figures.cell(name)] for words, name in blocks])


def peers_table(figures, size):
    own = f"validate/{size}/hit_uniform/single"
    rows = []
    for words, way in (("libapikey", "single"), ("libapikey, batch of 16", "batch16")):
        cells = [figures.cell(f"validate/{size}/{draw}/{way}") for draw in ("hit_uniform", "miss")]
        rows.append([words, "", cells[0], "", cells[1], ""])
    for words, peer, way in PEERS:
        cells = [
            figures.cell(f"{peer}_{by}/{size}/{draw}/{way}")
            for draw in ("hit_uniform", "miss")
            for by in ("key", "digest")
        ]
        theirs = f"{peer}_key/{size}/hit_uniform/{way}"
        times = ""
        if own in figures and theirs in figures:
            times = f"{figures.median(theirs) / figures.median(own):.1f}"
        rows.append([words, *cells, times])
    heads = ["peer", "known, by plaintext", "known, by SHA-256", "unknown, by plaintext", "unknown, by SHA-256"]
    return table([*heads, "known, by plaintext / libapikey single"], rows)


def percentile_rows(figures):
    """(what, its benchmark)."""
    for size in figures.sizes:
        yield f"libapikey, {grouped(size)}", f"validate/{size}/hit_uniform/percentiles"
    size = largest_peer_size(figures)
    for words, peer in (("boost map", "map"), ("LMDB", "lmdb"), ("Redis", "redis")):
        yield f"{words}, {grouped(size)}", f"{peer}_key/{size}/hit_uniform/percentiles"


def percentiles_table(figures):
    rows = []
    for words, name in percentile_rows(figures):
        if name in figures.counters:
            values = [nanoseconds(figures.counter(name, counter)) for counter in PERCENTILES]
            rows.append([words, f"{figures.counter(name, 'group'):.0f}", *values])
        else:
            rows.append([words, "", f"n/a: {figures.why_not(name)}", *[""] * (len(PERCENTILES) - 1)])
    return table(["what, keys", "calls timed together", *PERCENTILES.values()], rows)


def clock_words(figures):
    steps = [figures.counter(name, "step_ns") for _, name in percentile_rows(figures)]
    known = [step for step in steps if step]
    if not known:
        return ""
    return f"The smallest difference that two readings of the clock showed is {max(known):.1f} ns.\n"


def largest_peer_size(figures):
    return max((size for size in figures.sizes if size <= PEER_KEYS_MAX), default=figures.sizes[0])


def plots(figures, draw):
    """Name of the file -> (what it shows, SVG or None)."""

    def by_size(pattern):
        points = [(size, figures.median(pattern.format(size))) for size in figures.sizes]
        return [(size, value) for size, value in points if value]

    def throughput(size):
        points = [(batch, figures.median(batch_name(size, batch))) for batch in BATCHES]
        return [(batch, 1000 / value) for batch, value in points if value]

    def tail(name):
        if name not in figures.counters:
            return []
        return [(place, figures.counter(name, counter)) for place, counter in enumerate(PERCENTILES)]

    latency = {
        "libapikey": by_size("validate/{}/hit_uniform/single"),
        "libapikey, batch of 16": by_size("validate/{}/hit_uniform/batch16"),
        "boost map, plaintext": by_size("map_key/{}/hit_uniform/single"),
        "boost map, SHA-256": by_size("map_digest/{}/hit_uniform/single"),
        "std map, plaintext": by_size("std_key/{}/hit_uniform/single"),
        "LMDB, plaintext": by_size("lmdb_key/{}/hit_uniform/single"),
        "SQLite, plaintext": by_size("sqlite_key/{}/hit_uniform/single"),
    }
    size = largest_peer_size(figures)
    peers = [
        (words, [None, figures.median(f"validate/{size}/hit_uniform/{way}")])
        for words, way in (("libapikey, batch of 16", "batch16"), ("libapikey", "single"))
    ]
    for words, peer, way in PEERS:
        names = (f"{peer}_{by}/{size}/hit_uniform/{way}" for by in ("key", "digest"))
        peers.append((words, [figures.median(name) for name in names]))
    sizes = {f"{grouped(size)} keys": throughput(size) for size in figures.sizes}
    tails = {words: tail(name) for words, name in percentile_rows(figures)}
    places = dict(enumerate(PERCENTILES.values()))
    titles = {
        "latency": "A known key, one call: time against number of keys",
        "throughput": "Validations a second of one thread against keys in a call",
        "percentiles": "Percentiles of a single call, known keys",
        "peers": f"A known key among {grouped(size)}: libapikey and its peers",
    }
    pictures = {
        "latency": draw.lines(titles["latency"], "keys in the table (log scale)", "ns a key (log scale)", latency),
        "throughput": draw.lines(
            titles["throughput"],
            "keys in a call (log scale)",
            "million validations a second",
            sizes,
            y_log=False,
            x_names={batch: str(batch) for batch in BATCHES},
        ),
        "percentiles": draw.lines(
            titles["percentiles"], "percentile", "ns a call (log scale)", tails, x_log=False, x_names=places
        ),
        "peers": draw.bars(titles["peers"], "ns a key (log scale)", peers, ["by plaintext", "by SHA-256"]),
    }
    return {name: (titles[name], picture) for name, picture in pictures.items()}


def markdown(figures, about, images):
    """The whole report; `about` is [(what, words)], `images` the file's name -> its Markdown."""
    parts = [
        "# Measured: validating a key",
        table(["what", "here"], [list(row) for row in about]),
        "## Targets",
        f"{summary(figures)}. Ratios of times, or figures in the unit that is told. The *floor* stands in for libapikey where "
        "nothing is done but what no validation on this machine can do without: clock, CPU number, index hash, SHA-256, one "
        "line of the slots, one locked add in the cells, and for an unknown key the checksum that tells what it is. Of two "
        "processes it is what two that share no memory reach.",
        targets_table(figures),
        misses(figures),
        "## Method",
        METHOD.strip(),
        "## Validation, ns a key",
        validation_table(figures),
        pages_table(figures),
        images.get("latency", ""),
        "## Known keys by keys in a call, ns a key",
        batch_table(figures),
        images.get("throughput", ""),
        "## Known keys that have limits, ns a key",
        LIMITS_METHOD.strip(),
        limits_table(figures),
        "## Building blocks",
        blocks_table(figures),
        "## Peers, ns a key",
    ]
    for size in figures.sizes:
        parts += [f"### {grouped(size)} keys", peers_table(figures, size)]
    parts += [
        images.get("peers", ""),
        "## Percentiles of a single call, ns",
        clock_words(figures) + PERCENTILES_METHOD.strip(),
        percentiles_table(figures),
        images.get("percentiles", ""),
        *report_serving.section(figures.serving, table),
        "All figures are in `micro.json`" + (" and `serving.json`." if figures.serving else "."),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
