"""Which GGUF file it is: the digest of all of it, computed once.

It is kept beside the file with the size and time that the file had; where nothing can be written
there, the file is read again by every process (a gigabyte a second).
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path


def gguf_digest(file: Path) -> str:
    """SHA-256 of a file, 64 hex digits. Raises OSError where it cannot be read."""
    state = file.stat()
    known = file.with_name(f"{file.name}.sha256.json")
    now = {"size": state.st_size, "mtime_ns": state.st_mtime_ns}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(known.read_bytes())
        if {name: kept[name] for name in now} == now and len(kept["sha256"]) == 64:
            return str(kept["sha256"])
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    draft = known.with_name(f".{known.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps({**now, "sha256": found}))
        draft.replace(known)
    return found
