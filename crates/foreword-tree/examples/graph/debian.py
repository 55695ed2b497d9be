#!/usr/bin/env python3
"""Debian's package dependencies as a graph, one line for each node and edge, separated by tabs:

    N <package> <version> <section>
    E <package> <package it needs> <Depends or Pre-Depends> <constraint on the version, or nothing>

Usage, on Debian or its like:

    apt-cache dumpavail | ./debian.py > debian.tsv
    apt-cache dumpavail | ./debian.py vim cowsay > excerpt.tsv     # only these and what they need, directly or not

Of alternatives (a | b) each is an edge. A package that several versions are available of counts once, as the first.
"""
import re
import sys

KINDS = ("Pre-Depends", "Depends")


def stanzas(lines):
    fields = {}
    for line in lines:
        if line.strip() == "":
            yield fields
            fields = {}
        elif not line[0].isspace() and ":" in line:
            key, value = line.split(":", 1)
            fields[key] = value.strip()
    yield fields


def edges(fields):
    for kind in KINDS:
        for need in re.split(r"[,|]", fields.get(kind, "")):
            found = re.match(r"\s*([^\s(:]+)(?::\w+)?\s*(?:\((.*)\))?", need)
            if found:
                yield found[1], kind, found[2] or ""


packages = {}
for fields in stanzas(sys.stdin):
    if "Package" in fields:
        packages.setdefault(fields["Package"], fields)

wanted = list(sys.argv[1:] or packages)
seen = set(wanted)
for package in wanted:  # grows while it is gone through
    fields = packages.get(package, {})
    if fields:
        print("N", package, fields.get("Version", ""), fields.get("Section", ""), sep="\t")
    for need, kind, constraint in dict.fromkeys(edges(fields)):
        print("E", package, need, kind, constraint, sep="\t")
        if need not in seen:
            seen.add(need)
            wanted.append(need)
