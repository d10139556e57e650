"""From a run folder to its windows and back, by what both say of each other.

`run.json` names the output and a marker in the output names the run. Either file may come from
anybody and name any place, so a name is followed only where the place confirms it.
"""

import json
from typing import Any

from longctx.errors import RecipeError, RunError
from longctx.io import paths

MARKER = "_longctx.json"


def read_json(folder: str, name: str) -> dict[str, Any] | None:
    """An object in a JSON file of a folder; None where there is none.

    A file or a glob is no folder and a broken file is none: the caller says what is missing.
    """
    try:
        data = paths.read_if_exists(paths.join(folder, name))
    except (NotADirectoryError, RunError):
        return None
    if data is None:
        return None
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def output_of(run: dict[str, Any], root: str) -> str:
    """The folder of windows that a `run.json` in `root` names.

    Raises RecipeError where that folder does not say that it is of this run, or holds no windows.
    """
    output = str(run.get("output"))
    stages = run.get("stages")
    known = stages if isinstance(stages, list) else []
    ops = {str(s.get("op")) for s in known if isinstance(s, dict)}
    if run.get("status") == "done" and ops and not {"pack", "pack.turns", "export"} & ops:
        raise RecipeError(
            "this run wrote no windows: its recipe ends without `pack`",
            where=root,
            remedy="add `pack` as its last stage and run it again: what is done is kept",
        )
    marker = read_json(output, MARKER)
    if marker is None or marker.get("run_dir") != run.get("run_dir"):
        raise RecipeError(
            f"its run.json names the output {output!r}, which is not marked as this run's",
            where=root,
            remedy="give the folder of the windows itself",
        )
    refuse_documents(output)
    return output


def refuse_documents(folder: str) -> None:
    """Raise RecipeError for an output that holds documents, packs or rows instead of windows."""
    manifest = read_json(folder, "manifest.json") or {}
    if "rows" in manifest and "windows" not in manifest:
        raise RecipeError(
            "this output holds rows that a language model made, not windows: its recipe ends in "
            "`synth.*` or `prefer.*`",
            where=folder,
            remedy="read its files as they are: manifest.json lists them; windows come from `pack`",
        )
    if "packs" in manifest and "windows" not in manifest:
        raise RecipeError(
            "this output holds packs of conversations, not windows: its recipe ends in "
            "`pack.turns`",
            where=folder,
            remedy="read its files as they are: docs/recipe.md shows how; windows come from `pack`",
        )
    if "documents" in manifest and "windows" not in manifest:
        raise RecipeError(
            "this output holds documents, not windows: its recipe ends in `export`",
            where=folder,
            remedy="read its files as they are: manifest.json lists them; windows come from `pack`",
        )


def run_of(output: str) -> dict[str, Any] | None:
    """The `run.json` of the run that a folder of windows names, if that names the folder."""
    marker = read_json(output, MARKER)
    run = read_json(str(marker["run_dir"]), "run.json") if marker and "run_dir" in marker else None
    # Windows of several lengths lie in folders of their own below the output.
    places = (output, output.rpartition("/")[0])
    return run if run is not None and run.get("output") in places else None
