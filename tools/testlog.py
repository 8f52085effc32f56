#!/usr/bin/env python3
"""What tools/check asks about the tests of a build folder, and the counts of one `meson test` run.

usage: tools/testlog.py targets BUILD SUITE...  print what the suites' tests need built
       tools/testlog.py clear BUILD             forget earlier runs: their reports would hide a crash
       tools/testlog.py count BUILD             print "PASSED FAILED SKIPPED"; failures on standard error

A gtest program counts by its cases, any other test as one. A test that ended badly although none of its
reported cases failed (a crash, a time-out, a sanitizer's exit) counts as one failure more, and so does one
that reports no case at all. A test that never ran leaves no line and is nobody's pass.
"""

import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

GOOD = {"OK", "EXPECTEDFAIL"}


def introspect(build, what):
    """Meson keeps what it knows for others to read in BUILD/meson-info, up to date with every configuration."""
    return json.loads((build / "meson-info" / f"intro-{what}.json").read_text())


def targets(build, *suites):
    wanted = set()
    tests = [
        test
        for test in introspect(build, "tests")
        if {suite.split(":")[-1] for suite in test["suite"]} & set(suites)
    ]
    if not tests:
        sys.exit(f"{build}: no test in suite {' '.join(suites)}")
    if not all(test["depends"] for test in tests):
        # A script: it may look at anything that is built.
        print("all")
        return
    for test in tests:
        wanted.update(test["depends"])
    for target in introspect(build, "targets"):
        if target["id"] in wanted:
            for filename in target["filename"]:
                print(pathlib.Path(filename).relative_to(build))


def clear(build):
    """Meson merges BUILD/<test>.xml when the test ends, even one that an earlier run wrote."""
    for test in introspect(build, "tests"):
        if test["protocol"] == "gtest":
            (pathlib.Path(test["workdir"] or build) / f"{test['name']}.xml").unlink(missing_ok=True)
    for name in ("testlog.json", "testlog.junit.xml"):
        (build / "meson-logs" / name).unlink(missing_ok=True)


def gtest_cases(report):
    """Returns (passed, names of failed, skipped) of one gtest report; disabled cases count as skipped."""
    passed, failed, skipped = 0, [], 0
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}.{case.get('name')}")
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def count(build):
    passed, failed, skipped = 0, [], 0
    reports = {
        test["name"]: pathlib.Path(test["workdir"] or build) / f"{test['name']}.xml"
        for test in introspect(build, "tests")
        if test["protocol"] == "gtest"
    }
    log = build / "meson-logs" / "testlog.json"
    lines = log.read_text().splitlines() if log.exists() else []
    for run in map(json.loads, lines):
        name = run["name"].split(" / ")[-1].split(":")[-1]
        report = reports.get(name)
        case_failures = []
        if run["result"] == "SKIP":
            skipped += 1
        elif report is None:
            passed += run["result"] in GOOD
        elif report.exists():
            case_passed, case_failures, case_skipped = gtest_cases(report)
            passed += case_passed
            skipped += case_skipped
            if case_passed + len(case_failures) + case_skipped == 0:
                case_failures = ["reported no test case"]
        elif run["result"] in GOOD:
            case_failures = ["left no report"]
        if run["result"] not in GOOD | {"SKIP"} and not case_failures:
            case_failures = [f"{run['result']} (exit status {run['returncode']})"]
        failed += [f"{name}: {failure}" for failure in case_failures]
    for failure in failed:
        print(f"{build.name}: {failure}", file=sys.stderr)
    print(passed, len(failed), skipped)


if __name__ == "__main__":
    commands = {"targets": targets, "clear": clear, "count": count}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](pathlib.Path(sys.argv[2]).resolve(), *sys.argv[3:])
