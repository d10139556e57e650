"""longctx: raw corpora in, long-context training data out.

Importing this package is cheap on purpose: rooms, Ray and models load when a run needs them.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from longctx.engine.api import plan, run

__all__ = ["__version__", "plan", "run"]


def __getattr__(name: str) -> Any:
    if name in ("plan", "run"):
        from longctx.engine import api

        return getattr(api, name)
    raise AttributeError(f"module 'longctx' has no attribute {name!r}")
