"""One thread for the linear algebra of small tables.

On matrices of a few hundred rows threads cost more than they bring (on busy cores twenty times as
much), and the last bits of a sum would depend on how many there are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS use one thread inside; may be nested."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> Any:
    # It knows the libraries that are loaded when it is made.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()
