"""The output folder of a run: whose it is, what vouches for its files, what of them is left over.

It is claimed by a marker before anything is written, so that a run never mixes its files with
somebody else's, and a later run of the same recipe may replace its own: windows of `pack` as well
as documents of `export` and rows of `synth.*`.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from longctx import __version__
from longctx.engine.commit import Commit
from longctx.engine.op import Setting
from longctx.errors import RunError
from longctx.io import paths
from longctx.pack import formats
from longctx.schema import SCHEMA_VERSION

MARKER = "_longctx.json"
MANIFEST = "manifest.json"
OURS = re.compile(
    r"part-\d{5,}\.(parquet|jsonl(\.gz|\.zst)?)|(chat|trl)-\d{5,}\.jsonl"
    r"|(rejects|calls|candidates|notes|train|tree|final)-\d{5,}\.parquet"
    r"|judge_report\.json|manifest\.json"
)
_LENGTH = re.compile(r"(length-\d+)/(.+)")


def claim(setting: Setting) -> None:
    """Mark the output folder as this run's. Raises RunError if it holds anything else."""
    marker = paths.join(setting.output, MARKER)
    owner = {"run_dir": setting.run_dir}
    found = paths.read_if_exists(marker)
    if found is not None:
        other = json.loads(found).get("run_dir")
        if other != setting.run_dir:
            raise RunError(
                f"the output folder belongs to the run {other}",
                where=setting.output,
                remedy="choose another output.path, or remove the folder",
            )
        return
    present = [
        n for n in paths.list_files(setting.output, recursive=True) if paths.TEMPORARY not in n
    ]
    if present:
        raise RunError(
            f"the output folder is not empty ({present[0]} and {len(present) - 1} more)",
            where=setting.output,
            remedy="choose another output.path",
        )
    paths.write_atomic(marker, json.dumps(owner).encode())


def withdraw(setting: Setting) -> None:
    """Remove the manifests before the files that they list may change."""
    for name in [*paths.list_files(setting.output, recursive=True), MANIFEST]:
        folder, below = split(name)
        if below == MANIFEST:
            paths.remove(paths.join(setting.output, folder, below))


def split(name: str) -> tuple[str, str]:
    """The folder of a window length ("" where there is one length) and the name below it."""
    found = _LENGTH.fullmatch(name)
    return (found[1], found[2]) if found else ("", name)


def made_by(setting: Setting) -> dict[str, Any]:
    """What every manifest says of where its files come from."""
    return {
        "schema_version": SCHEMA_VERSION,
        "longctx": __version__,
        "recipe_fingerprint": setting.recipe_fingerprint,
        "seed": setting.seed,
        "tokenizer": setting.tokenizer,
        "tokenizer_fingerprint": setting.tokenizer_fingerprint,
    }


def remove_stale(output: str, current: set[str]) -> None:
    """Remove files of ours, of an earlier plan or a killed writer, that are not among `current`."""
    keep = current | {MANIFEST}
    for name in paths.list_files(output, recursive=True, temporary=True):
        ours = OURS.fullmatch(name) or formats.is_ours(name) or paths.TEMPORARY in name
        if name not in keep and ours:
            paths.remove(paths.join(output, name))


def remove_other_lengths(setting: Setting, outputs: Iterable[str]) -> None:
    """Remove what an earlier plan wrote for window lengths that this one does not have.

    `outputs` are the folders that this plan wrote to.
    """
    kept = {o.removeprefix(setting.output).strip("/") for o in outputs}
    for name in paths.list_files(setting.output, recursive=True):
        folder, below = split(name)
        ours = OURS.fullmatch(below) or formats.is_ours(below) or (folder and below == MARKER)
        if folder not in kept and ours and name != MANIFEST:
            paths.remove(paths.join(setting.output, folder, below))


def vouch(setting: Setting, commits: Iterable[Commit], told: dict[str, Any]) -> None:
    """Remove what an earlier run left, and let `manifest.json` list the files of these commits.

    `told` is what the manifest says beside the files and where they come from.
    """
    prefix = setting.output.rstrip("/") + "/"
    files = {f.name.removeprefix(prefix): f for c in commits for f in c.files}
    remove_stale(setting.output, set(files))
    remove_other_lengths(setting, [setting.output])
    listed = [
        {"name": n, "bytes": f.size, "rows": f.rows, "blake2b_128": f.checksum}
        for n, f in sorted(files.items())
    ]
    manifest = {**made_by(setting), **told, "files": listed}
    data = json.dumps(manifest, indent=1, sort_keys=True).encode()
    paths.write_atomic(paths.join(setting.output, MANIFEST), data)
