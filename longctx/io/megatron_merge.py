"""One Megatron prefix of all that a run wrote: `.bin` files copied end to end, one `.idx`.

Worth it where shards hold few windows: the GPT loader drops one window of every prefix and epoch (1
in 128 for shards of 2**24 tokens and windows of 131,072). One process, bounded memory (the copy's
buffer and 20 bytes a window), as fast as the disk; the `.idx` is written last, so that an
interrupted merge is not taken for a prefix.
"""

import shutil

from longctx.errors import RunError
from longctx.io import megatron, paths

_BUFFER = 2**24


def merge_prefixes(folder: str, prefix: str) -> int:
    """Merge the prefixes that `data_args.txt` of a folder lists; the number of windows.

    `prefix` is where `.bin` and `.idx` go, on any fsspec URL. Raises RunError if a file is missing
    or damaged, if a name leads out of the folder, or if the result would overwrite a source.
    """
    sources = _sources(folder)
    if paths.absolute(prefix) in {paths.absolute(s) for s in sources}:
        raise RunError(
            f"{prefix.rpartition('/')[2]} is one of the prefixes to merge",
            where=prefix,
            remedy="name another prefix",
        )
    indices = [_read(f"{source}.idx") for source in sources]
    try:
        merged = megatron.merged_index(indices)
    except ValueError as error:
        raise RunError(
            str(error), where=folder, remedy="run `longctx run` again; it repairs its output"
        ) from None
    paths.remove(f"{prefix}.idx")
    _copy([f"{source}.bin" for source in sources], f"{prefix}.bin")
    paths.write_atomic(f"{prefix}.idx", merged)
    return len(megatron.read_index(merged)[0])


def _sources(folder: str) -> list[str]:
    listed = paths.read_if_exists(paths.join(folder, megatron.DATA_ARGS))
    words = (listed or b"").decode().split()
    if not words:
        raise RunError(
            f"there is no {megatron.DATA_ARGS} that lists prefixes",
            where=folder,
            remedy="give the folder `megatron` of a run's output",
        )
    return [paths.inside(folder, name) for name in words[1::2]]


def _read(url: str) -> bytes:
    data = paths.read_if_exists(url)
    if data is None:
        raise _gone(url)
    return data


def _gone(url: str) -> RunError:
    return RunError("the file is gone", where=url, remedy="run again: it is written again")


def _copy(sources: list[str], target: str) -> None:
    out, place = paths.filesystem(target)
    with paths.clear_errors(target):
        out.makedirs(out._parent(place), exist_ok=True)
        with out.open(place, "wb") as sink:
            for source in sources:
                fs, path = paths.filesystem(source)
                try:
                    with fs.open(path, "rb") as stream:
                        shutil.copyfileobj(stream, sink, _BUFFER)
                except FileNotFoundError:
                    raise _gone(source) from None
