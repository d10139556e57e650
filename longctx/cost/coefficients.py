"""The measured coefficients that come with the library; `make calibrate` writes them."""

import json
from functools import lru_cache
from importlib import resources

from longctx.cost.model import Measured

FILE = "coefficients.json"


@lru_cache(maxsize=1)
def packaged() -> Measured:
    """The coefficients of `longctx/cost/coefficients.json`."""
    text = resources.files("longctx.cost").joinpath(FILE).read_text(encoding="utf-8")
    return Measured.from_json(json.loads(text))
