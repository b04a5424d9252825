"""Prints what an lcov file says as a table, and the lines of the gates that were not run."""

import os
import sys

# The three gates: the rings; the step from raw to validated; the other end's strings (docs/ARCHITECTURE.md).
GATES = [
    "XenRing/FrontRing.swift", "XenRing/BackRing.swift", "XenRing/RingPage.swift", "XenRing/RingViolation.swift",
    "XenRing/ByteRing.swift", "XenRing/ByteRingHalf.swift", "XenRing/ByteRingReader.swift",
    "XenRing/ByteRingWriter.swift", "XenRing/ByteRingPages.swift",
    "BlkIf/BlkRequest.swift", "BlkIf/BlkProtocol.swift", "BlkIf/BlockGeometry.swift",
    "NetIf/NetTxAssembly.swift", "NetIf/NetResponses.swift", "NetIf/NetExtraInfo.swift", "NetIf/NetHeaders.swift",
    "NetIf/NetControlRequest.swift", "NetIf/NetControlAnswer.swift", "NetIf/NetControlGrants.swift",
    "NetIf/NetControlFault.swift", "NetIf/NetHashConfiguration.swift",
    "XenBus/StoreDirectory.swift", "BlkBack/BlkFrontendKeys.swift", "BlkFront/BlkBackendKeys.swift",
    "NetBack/NetFrontendKeys.swift", "NetFront/NetBackendKeys.swift",
]

files = {}
for line in open(sys.argv[1], encoding="utf-8"):
    tag, _, rest = line.strip().partition(":")
    if tag == "SF":
        lines = files.setdefault(os.path.relpath(rest, "Sources"), {})
    elif tag == "DA":
        number, count = map(int, rest.split(",")[:2])
        # A line of a generic function is there once for each type that it was made for.
        lines[number] = max(lines.get(number, 0), count)


def without_braces(name, lines):
    """A brace behind a loop that is only left by a return, or behind a throw, counts as a line that is not run."""
    with open(f"Sources/{name}", encoding="utf-8") as source:
        text = source.read().splitlines()
    return {number: count for number, count in lines.items() if count > 0 or text[number - 1].strip(" })") != ""}


files = {name: without_braces(name, lines) for name, lines in files.items()}


def row(name, lines, covered):
    print(f"{name:<48} {lines:>7} {covered:>7} {100 * covered / max(lines, 1):>8.1f} %")


print(f"{'file':<48} {'lines':>7} {'run':>7} {'':>8}")
total = [0, 0]
modules = {}
for name in sorted(files):
    lines = files[name]
    covered = sum(count > 0 for count in lines.values())
    row(name, len(lines), covered)
    for sums in (total, modules.setdefault(name.split("/")[0], [0, 0])):
        sums[0] += len(lines)
        sums[1] += covered
print()
for name, sums in sorted(modules.items()):
    row(name, *sums)
row("all", *total)

gates = [files[name] for name in GATES if name in files]
row("the gates", sum(map(len, gates)), sum(count > 0 for lines in gates for count in lines.values()))

print("\nlines of the gates that no test runs:")
for name in GATES:
    if name not in files:
        print(f"  {name} is not there")
        continue
    missed = [number for number, count in sorted(files[name].items()) if count == 0]
    with open(f"Sources/{name}", encoding="utf-8") as source:
        text = source.read().splitlines()
    for number in missed:
        print(f"  {name}:{number}: {text[number - 1].strip()}")
