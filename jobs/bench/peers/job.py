"""The job that every tool is given, and the form in which it says what it did.

Removes near-duplicates from a folder of Parquet files with the columns `id` and `text`: shingles of
5 words, 14 bands of 8 of 112 permutations, which is half certain at a Jaccard similarity of 0.7.
The scripts beside this module run it, each in the environment of its tool, so nothing is imported
here but the standard library.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

NGRAM, BANDS, ROWS, THRESHOLD = 5, 14, 8, 0.7


@dataclass(frozen=True)
class Job:
    """What to read, where to work (a folder of the run's own), and on how many processes.

    `warm` is a corpus to do before the clock starts, for a tool whose processes stay.
    """

    corpus: Path
    work: Path
    workers: int
    warm: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The Parquet files in the order of their names."""
        return sorted(self.corpus.glob("*.parquet"))


@dataclass(frozen=True)
class Outcome:
    """What a tool did: ids of the documents that it removed, and how it was set.

    `figures` are numbers of the tool's own, such as the seconds of its steps.
    """

    package: str
    version: str
    settings: str
    documents: int
    removed: list[str]
    figures: dict[str, float]


def main(
    package: str, settings: str, tool: Callable[[Job], tuple[list[str], dict[str, float]]]
) -> None:
    """Run a tool on the job of the command line and print its Outcome as the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--warm", type=Path)
    job = Job(**vars(parser.parse_args()))
    removed, figures = tool(job)
    found = Outcome(package, version(package), settings, len(ids(job)), sorted(removed), figures)
    # Some tools put a logger of their own in the place of sys.stdout.
    print("\n" + json.dumps(asdict(found)), file=sys.__stdout__, flush=True)


def ids(job: Job) -> list[str]:
    """Ids of all documents, in the order of the files."""
    import pyarrow.parquet as pq

    return [i for file in job.files for i in pq.read_table(file, columns=["id"])["id"].to_pylist()]


def missing(job: Job, kept: Sequence[str]) -> list[str]:
    """Ids of the corpus that are not among those kept."""
    living = set(kept)
    return [i for i in ids(job) if i not in living]


def outcome_of(printed: str) -> Outcome:
    """The Outcome in the last line of what a script printed. ValueError where there is none."""
    lines = printed.strip().splitlines()
    try:
        value: dict[str, Any] = json.loads(lines[-1])
        return Outcome(**value)
    except (IndexError, TypeError, ValueError) as error:
        last = lines[-1][:200] if lines else "nothing"
        raise ValueError(f"the script's last line is no result: {last}") from error
