"""A path or URL in a recipe, in which `${NAME}` stands for a variable of the environment."""

import os
import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand(value: Any) -> Any:
    """Replace `${NAME}` in a string. Raises ValueError naming a variable that is not set."""

    def replace(match: re.Match[str]) -> str:
        if (found := os.environ.get(match[1])) is None:
            raise ValueError(f"the environment variable {match[1]} is not set")
        return found

    return _VARIABLE.sub(replace, value) if isinstance(value, str) else value


Location = Annotated[str, BeforeValidator(expand)]
