"""How ops that compare shingles normalise each document: by the profile of its source."""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Profile = Literal["text", "code"]


def by_profile(
    table: pa.Table, profile: Profile, profiles: Mapping[str, Profile]
) -> Iterator[tuple[Profile, npt.NDArray[np.int64], pa.Array]]:
    """Profile, rows (int64) and texts of the documents that are normalised alike.

    `profiles` names the profile of a source, `profile` that of all others.
    """
    texts = table.column("text").combine_chunks()
    sources = table.column("source").to_pylist()
    named = np.array([profiles.get(s, profile) for s in sources], dtype=object)
    for one in sorted(set(named)):
        rows = np.flatnonzero(named == one)
        yield one, rows, texts.take(pa.array(rows))
