"""The audit of dependencies: what it finds in this environment, and what it must not let pass."""

import json
import sys
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from jobs import audit

PINS = audit.pins(audit.CONSTRAINTS.read_text(encoding="utf-8"))


class Package:
    """An installed package as `importlib.metadata` shows it."""

    def __init__(self, name: str, version: str, **fields: str) -> None:
        self.version = version
        self.metadata: Any = Message()
        self.metadata["Name"] = name
        for field, value in fields.items():
            self.metadata[field.replace("_", "-")] = value


def test_everything_installed_is_pinned() -> None:
    assert audit.unpinned(audit.dependencies("longctx[dev]"), PINS) == []


def test_every_licence_is_permissive() -> None:
    assert audit.not_permissive(audit.dependencies("longctx[dev]")) == []


def test_dependencies_are_followed_with_their_extras() -> None:
    found = {audit.normal(d.metadata["Name"]) for d in audit.dependencies("longctx")}
    assert {"longctx", "ray", "aiohttp", "aiohttp-cors", "multidict", "skeletoken"} <= found
    assert "hypothesis" not in found
    assert len(found) > 80


def test_a_package_without_its_pin_is_found() -> None:
    pinned = audit.pins("Some.Name==1.0  # why\nother==2\n")
    installed = [Package("some_name", "1.0+cpu"), Package("other", "3"), Package("new", "1")]
    assert audit.unpinned(installed, pinned) == ["new 1 (pinned: no)", "other 3 (pinned: 2)"]


@pytest.mark.parametrize(
    "fields",
    [
        {"License_Expression": "GPL-3.0-only"},
        {"License_Expression": "MIT AND LGPL-2.1-or-later"},
        {"License_Expression": "MIT OR (MIT AND GPL-2.0-only)"},
        {"Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"},
        {"License": "Proprietary"},
        {},
    ],
)
def test_other_licences_are_found(fields: dict[str, str]) -> None:
    assert len(audit.not_permissive([Package("x", "1", **fields)])) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"License_Expression": "Apache-2.0 OR GPL-2.0-only"},
        {"Classifier": "License :: OSI Approved :: BSD License"},
        {"License": "3-Clause BSD License"},
        {"License": "MPL-2.0 AND MIT"},
    ],
)
def test_permissive_ones_pass(fields: dict[str, str]) -> None:
    assert audit.not_permissive([Package("x", "1", **fields)]) == []


def audited(**more: Any) -> dict[str, Any]:
    return {"name": "x", "version": "1", "vulns": [], **more}


def answer(*dependencies: dict[str, Any]) -> str:
    return json.dumps({"dependencies": list(dependencies), "fixes": []})


def test_vulnerabilities_are_told_with_their_remedy() -> None:
    known = [{"id": "PYSEC-1", "fix_versions": ["2", "3"]}, {"id": "PYSEC-2", "fix_versions": []}]
    found = audit.weaknesses(answer(audited(vulns=known)))
    assert [str(w) for w in found] == [
        "x 1: PYSEC-1, fixed in 2, 3",
        "x 1: PYSEC-2, no fixed version yet",
    ]
    assert audit.weaknesses(answer(audited())) == []


@pytest.mark.parametrize("output", ["", "Traceback ...", "[]", '{"fixes": []}'])
def test_no_answer_is_no_success(output: str) -> None:
    with pytest.raises(audit.AuditError, match="did not answer"):
        audit.weaknesses(output)


def test_what_was_passed_over_is_no_success() -> None:
    passed = {"name": "y", "skip_reason": "Dependency not found and could not be audited"}
    with pytest.raises(audit.AuditError, match=r"1 of 2 dependencies \(y\)"):
        audit.weaknesses(answer(audited(), passed))


def test_an_audit_that_was_not_made_fails_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "ask_service", lambda constraints: "")
    assert audit.main([]) == 1
    printed = capsys.readouterr()
    assert printed.err == (
        "vulnerabilities were NOT audited: the vulnerability service did not answer\n"
    )
    assert "vulnerabilities" not in printed.out


def test_a_tool_that_cannot_be_installed_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Failed:
        returncode = 1

    monkeypatch.setattr(audit, "FOLDER", tmp_path)
    monkeypatch.setattr(audit.venv, "create", lambda *args, **kwargs: None)
    monkeypatch.setattr(audit.subprocess, "run", lambda *args, **kwargs: Failed())
    with pytest.raises(audit.AuditError, match="cannot be installed"):
        audit.ask_service(audit.CONSTRAINTS)


def test_the_offline_half_needs_no_service(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "ask_service", lambda constraints: sys.exit("asked"))
    assert audit.main(["--offline"]) == 0
    assert capsys.readouterr().out.endswith("0 findings\n")
