"""Dependencies audited: every one pinned, under a permissive licence, without known weaknesses.

    python -m jobs.audit [--offline]

Pins and licences are read from what is installed of the requirements, without a network. Known
vulnerabilities come from pip-audit, in an environment of its own below `build/audit`, which asks a
service about every pin of constraints.txt. What the service does not know counts as not audited,
and an audit that was not made is a failure: pip-audit would call both "no known vulnerabilities".
"""

import argparse
import json
import re
import subprocess
import sys
import venv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
FOLDER = ROOT / "build" / "audit"
PIP_AUDIT = "pip-audit==2.10.1"
_SECONDS = 900
_LISTED = 5

# The project itself, and what `python -m venv` brings.
NOT_PINNED = frozenset({"longctx", "pip", "setuptools"})
# MPL-2.0 asks for the source of changed files of the package itself; none is changed here.
PERMISSIVE = frozenset(
    {
        *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause"),
        *("BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0"),
        *("Python-2.0", "Unlicense", "Zlib"),
    }
)
# Licences of packages whose metadata name none, read in their files.
REVIEWED = {"skeletoken": "MIT"}
_WORDS = (
    (r"apache", "Apache-2.0"),
    (r"mozilla public license 2|mpl-2", "MPL-2.0"),
    (r"\bmit\b", "MIT"),
    (r"2-clause bsd|bsd-2-clause", "BSD-2-Clause"),
    (r"bsd", "BSD-3-Clause"),
    (r"\bisc\b", "ISC"),
    (r"python software foundation|psf-2", "PSF-2.0"),
)


class AuditError(Exception):
    """Why the audit of vulnerabilities could not be made."""


@dataclass(frozen=True)
class Weakness:
    """A known vulnerability of a pinned version, and the versions without it."""

    name: str
    version: str
    identity: str
    fixed: tuple[str, ...]

    def __str__(self) -> str:
        remedy = f"fixed in {', '.join(self.fixed)}" if self.fixed else "no fixed version yet"
        return f"{self.name} {self.version}: {self.identity}, {remedy}"


def normal(name: str) -> str:
    """A package's name as indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def dependencies(requirement: str) -> list[Distribution]:
    """What a requirement brings, itself and indirect ones included, as far as it is installed."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    pending = [Requirement(requirement)]
    while pending:
        wanted = pending.pop()
        try:
            one = distribution(wanted.name)
        except PackageNotFoundError:
            continue
        found[normal(wanted.name)] = one
        for extra in ("", *wanted.extras):
            if (key := (normal(wanted.name), extra)) in seen:
                continue
            seen.add(key)
            needs = map(Requirement, one.requires or ())
            pending += [n for n in needs if not n.marker or n.marker.evaluate({"extra": extra})]
    return list(found.values())


def pins(text: str) -> dict[str, str]:
    """Versions by name from a constraints file."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    split = (line.partition("==") for line in lines if line)
    return {normal(name.strip()): version.strip() for name, _, version in split}


def unpinned(installed: Iterable[Distribution], pinned: Mapping[str, str]) -> list[str]:
    """Installed packages without a pin, or in another version; local labels do not count."""
    found = []
    for one in installed:
        name = normal(one.metadata["Name"])
        if name in NOT_PINNED or pinned.get(name) == one.version.partition("+")[0]:
            continue
        found.append(f"{name} {one.version} (pinned: {pinned.get(name, 'no')})")
    return sorted(found)


def licence_of(metadata: Any) -> str:
    """The licence that a package's metadata name, as an SPDX expression where that can be told.

    Older packages use free text or classifiers; "" where there is nothing.
    """
    if expression := metadata["License-Expression"]:
        return str(expression)
    if reviewed := REVIEWED.get(normal(metadata["Name"])):
        return reviewed
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    said = [c.rpartition(" :: ")[2] for c in classifiers]
    first = ((metadata["License"] or "").strip().splitlines() or [""])[0]
    told = [spdx for text in (*said, first) if (spdx := _spdx(text))]
    return " OR ".join(dict.fromkeys(told)) or " ".join([*said, first]).strip()


def _spdx(text: str) -> str:
    if re.fullmatch(r"[\w.-]+( AND [\w.-]+)+", text):
        return text
    return next((spdx for pattern, spdx in _WORDS if re.search(pattern, text.lower())), "")


def is_permissive(licence: str) -> bool:
    """Whether one of the alternatives of an SPDX expression has permissive parts only."""
    plain = licence.replace("(", "").replace(")", "")
    if "(" in licence and " OR " in licence:
        # Without a parser every licence that is named must do.
        return all(part in PERMISSIVE for part in re.split(r" AND | OR ", plain))
    return any(
        all(part.strip() in PERMISSIVE for part in choice.split(" AND "))
        for choice in plain.split(" OR ")
    )


def not_permissive(installed: Iterable[Distribution]) -> list[str]:
    """Installed packages under another licence, or under none that can be told."""
    named = ((d.metadata["Name"], licence_of(d.metadata)) for d in installed)
    return sorted(
        f"{normal(name)}: {licence or 'no licence is named'}"
        for name, licence in named
        if normal(name) != "longctx" and not is_permissive(licence)
    )


def weaknesses(output: str) -> list[Weakness]:
    """Known vulnerabilities in pip-audit's JSON.

    Raises AuditError where it is none, or where a dependency was passed over.
    """
    try:
        found = json.loads(output)["dependencies"]
        skipped = [str(d["name"]) for d in found if "skip_reason" in d]
        listed = [
            Weakness(d["name"], d["version"], v["id"], tuple(v["fix_versions"]))
            for d in found
            for v in d.get("vulns", ())
        ]
    except (ValueError, KeyError, TypeError):
        raise AuditError("the vulnerability service did not answer") from None
    if skipped:
        more = ", ..." if len(skipped) > _LISTED else ""
        raise AuditError(
            f"the vulnerability service knows nothing of {len(skipped)} of {len(found)} "
            f"dependencies ({', '.join(skipped[:_LISTED])}{more})"
        )
    return listed


def ask_service(constraints: Path) -> str:
    """Run pip-audit over a list of pins; its JSON. Raises AuditError where it cannot be had."""
    python = FOLDER / "bin" / "python"
    if not (FOLDER / PIP_AUDIT).is_file():
        venv.create(FOLDER, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", PIP_AUDIT]
        if subprocess.run(install, capture_output=True, check=False).returncode:
            raise AuditError(f"{PIP_AUDIT} cannot be installed")
        (FOLDER / PIP_AUDIT).touch()
    command = [str(python), "-m", "pip_audit", "--requirement", str(constraints), "--no-deps"]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise AuditError("the vulnerability service did not answer") from None
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Audit what is installed; 0 where nothing was found and everything was looked at."""
    parser = argparse.ArgumentParser(prog="python -m jobs.audit")
    parser.add_argument("--offline", action="store_true", help="pins and licences only")
    parser.add_argument("--constraints", type=Path, default=CONSTRAINTS, help="list of pins")
    given = parser.parse_args(arguments)
    installed = dependencies("longctx[dev]")
    text = given.constraints.read_text(encoding="utf-8")
    findings = [
        *(f"not pinned: {line}" for line in unpinned(installed, pins(text))),
        *(f"licence: {line}" for line in not_permissive(installed)),
    ]
    failed = ""
    if not given.offline:
        try:
            findings += [f"vulnerable: {w}" for w in weaknesses(ask_service(given.constraints))]
        except AuditError as error:
            failed = f"vulnerabilities were NOT audited: {error}"
    for line in findings:
        print(line)
    more = "" if given.offline or failed else " and vulnerabilities"
    print(f"pins, licences{more} of {len(installed)} packages: {len(findings)} findings")
    if failed:
        print(failed, file=sys.stderr)
    return 1 if findings or failed else 0


if __name__ == "__main__":
    sys.exit(main())
