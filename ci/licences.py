#!/usr/bin/env python3
"""Checks what the dependencies ask of us: their licences, and the compiler they need."""

import json
import re
import subprocess
import sys

ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "Unicode-3.0", "Unlicense", "Zlib",
}


def permitted(expression: str) -> bool:
    """Can the licence be met with allowed ones alone? An SPDX expression; `/` is the old way to write OR.

    >>> permitted("MIT OR GPL-3.0"), permitted("MIT AND GPL-3.0")
    (True, False)
    >>> permitted("(MIT OR Apache-2.0) AND Unicode-3.0"), permitted("MIT/Apache-2.0")
    (True, True)
    >>> permitted("GPL-3.0 OR MIT AND GPL-3.0"), permitted("GPL-3.0 AND MIT OR ISC")
    (False, True)
    >>> permitted("Apache-2.0 WITH LLVM-exception OR MIT"), permitted("Apache-2.0 WITH LLVM-exception")
    (True, False)
    >>> permitted("")
    Traceback (most recent call last):
    ValueError: not a licence expression: ''
    """
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def any_of() -> bool:
        result = all_of()
        while tokens[:1] == ["OR"]:
            tokens.pop(0)
            result = all_of() or result
        return result

    def all_of() -> bool:
        result = one()
        while tokens[:1] == ["AND"]:
            tokens.pop(0)
            result = one() and result
        return result

    def one() -> bool:
        if not tokens:
            raise ValueError(f"not a licence expression: {expression!r}")
        token = tokens.pop(0)
        if token == "(":
            result = any_of()
            if tokens[:1] != [")"]:
                raise ValueError(f"not a licence expression: {expression!r}")
            tokens.pop(0)
            return result
        if tokens[:1] == ["WITH"]:
            token = f"{token} WITH {tokens[1]}"
            del tokens[:2]
        return token in ALLOWED

    result = any_of()
    if tokens:
        raise ValueError(f"not a licence expression: {expression!r}")
    return result


def version(text: str) -> tuple[int, ...]:
    """A version to compare with others; parts that are not given are 0.

    >>> version("1.88") == version("1.88.0"), version("1.9") < version("1.10")
    (True, True)
    """
    parts = [int(part) for part in text.split(".")]
    return tuple(parts + [0] * (3 - len(parts)))


def main() -> int:
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--all-features"], check=True, stdout=subprocess.PIPE
    )
    packages = json.loads(metadata.stdout)["packages"]
    ours = [package for package in packages if package["source"] is None]
    theirs = [package for package in packages if package["source"] is not None]
    problems = []

    for package in theirs:
        if not permitted(package["license"] or "none"):
            problems.append(f"{package['name']} {package['version']}: licence {package['license']}")

    demanding = max(theirs, key=lambda package: version(package["rust_version"] or "0"))
    needed = demanding["rust_version"]
    for package in ours:
        declared = package["rust_version"]
        if declared is None or version(declared) != version(needed):
            problems.append(
                f"{package['name']} declares rust-version {declared}, "
                f"but {demanding['name']} {demanding['version']} needs {needed}"
            )

    for problem in problems:
        print(problem)
    print(f"{len(theirs)} dependencies, {len(problems)} problems; the newest rust-version among them is {needed}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
