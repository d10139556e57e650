"""A message for the end that a process cannot tell of itself.

The kernel ends a process that takes too much memory, and Ray's native code ends it when the head of
its cluster is gone: no exception, no message. So a shell waits beside it, and speaks only when the
process is gone without having said that all is well.
"""

import contextlib
import subprocess
from collections.abc import Iterator

# It must outlive what the terminal sends to both, and write when nobody else can.
_SHELL = """trap '' INT TERM HUP; read -r _ || printf '%s\\n' "$0" >&2"""


@contextlib.contextmanager
def last_words(words: str) -> Iterator[None]:
    """Have `words` written to stderr if this process is ended from outside within the block."""
    with subprocess.Popen(["/bin/sh", "-c", _SHELL, words], stdin=subprocess.PIPE) as waiting:
        assert waiting.stdin is not None
        try:
            yield
        finally:
            with contextlib.suppress(BrokenPipeError):
                waiting.stdin.write(b"ended\n")
                waiting.stdin.close()
