"""What a missed target is made of, as far as other figures of the same run tell."""


def ns(value):
    return f"{value:.0f} ns"


def of_the_floor(figures, hit, floor, hashing, words):
    beyond = figures.median(hit) - figures.median(floor)
    return (
        f"the floor takes {ns(figures.median(floor))}, {ns(figures.median(hashing))} of them {words}; libapikey "
        f"{ns(beyond)} more: it takes the key apart, compares all of the digest, and fills a verdict that has state, "
        "expiry, scopes, addresses and limits behind it"
    )


def of_a_peer(figures, floor, peer, bound):
    """That hashes nothing, and counts nothing."""
    if floor not in figures:
        return ""
    wanted, least = figures.median(peer) * bound, figures.median(floor)
    return (
        f"the target is {ns(wanted)} here, the floor {ns(least)}"
        f"{', so no library that hashes and counts can hold it' if least > wanted else ''}"
    )


def of_pages(figures, small, large):
    return f"{ns(figures.median(small))} on 4 KiB pages, {ns(figures.median(large))} on 2 MiB" if large in figures else ""


def of_an_unknown_key(figures, size):
    """Whether it is fetching or computing: the same few keys again and again have all of it at hand."""
    hit, miss = (figures.median(f"validate/{size}/{draw}/single") for draw in ("hit_uniform", "miss"))
    names = [f"validate/{size}/{draw}/learnt" for draw in ("hit_uniform", "miss")]
    if any(name not in figures for name in (*names, "key_form_checksum")):
        return ""
    known, unknown = map(figures.median, names)
    checksum = figures.median("key_form_checksum")
    return (
        f"an unknown key takes {ns(miss - hit)} more, and {ns(unknown - known)} more where its lines are at hand, which is "
        f"computing: {ns(checksum)} the checksum that tells a typo from a key that nobody issued, the rest not told apart"
    )


def of_a_writer(row, figure):
    """What a change of the table takes from who reads it, by the row of a process beside the writer."""
    if figure != "ratio" or not row["changes_per_s"]:
        return ""
    lost = (1 - row["ratio"] / row["floor"]) / row["changes_per_s"]
    return (
        f"beside a writer of another table it is {row['floor']:.2f}; what is lost beyond that is {ns(lost * 1e9)} a change, "
        "which takes the line of its key out of the reader's cache"
    )
