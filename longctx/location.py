"""A path or URL in a recipe, in which `${NAME}` stands for a variable of the environment.

What a variable holds becomes part of a place, and places are written down and shown. So neither the
recipe nor its variables may put credentials into a URL.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from longctx.credentials import REMEDY, found_in
from longctx.errors import RecipeError

# The folder in which Ray keeps the uploaded working directories of jobs.
_UPLOADED = "working_dir_files"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand(value: Any) -> Any:
    """Replace `${NAME}` in a string.

    Raises ValueError naming a variable that is not set, for a `${` that is not a variable, for
    credentials in the result, and when nothing is left: an empty path would mean the working
    directory.
    """
    if not isinstance(value, str):
        return value
    if "${" in _VARIABLE.sub("", value):
        raise ValueError("`${` must be followed by the name of a variable and `}`")
    expanded = _VARIABLE.sub(_from_environment, value)
    if not expanded.strip():
        raise ValueError("the path is empty")
    if kind := found_in(expanded):
        raise ValueError(f"with its variables the URL holds {kind}: {REMEDY}")
    return expanded


def _from_environment(match: re.Match[str]) -> str:
    if (found := os.environ.get(match[1])) is None:
        raise ValueError(f"the environment variable {match[1]} is not set")
    return found


def refuse_lost_place(where: str, place: str | None) -> None:
    """In a submitted job a relative path leads into a copy that Ray removes after the job."""
    if not place or "://" in place or _UPLOADED not in Path.cwd().parts:
        return
    if not Path(place).expanduser().is_absolute():
        raise RecipeError(
            f"`{place}` would lie in the job's temporary copy of the working directory",
            where=where,
            remedy="give an absolute path that all nodes share, or a URL",
        )


Location = Annotated[str, BeforeValidator(expand)]
