"""The corpus of a finished run, from its folder: documents, sidecars, who was removed."""

from collections.abc import Sequence
from typing import Any

from longctx.engine import commit, ingest
from longctx.engine.corpus import Corpus, Sidecar, open_parquet
from longctx.engine.op import DROP_REASON
from longctx.errors import RunError
from longctx.io import paths

# These end in windows or packs; what they did not place was alive before.
_PACKERS = ("pack", "pack.turns")


def finished_corpus(root: str, stages: Sequence[dict[str, Any]]) -> Corpus:
    """Documents of a run with all that these stages, from its `run.json`, wrote beside them.

    Raises RunError where a stage removed some and its files are gone.
    """
    read = commit.load(paths.join(root, "stages", ingest.STAGE, "groups"))
    corpus = ingest.corpus_of(root, list(read.values()))
    names = [corpus.part(number).name for number in range(len(corpus))]
    for stage in stages:
        folder = paths.inside(root, f"stages/{stage['stage']}")
        commits = commit.load(folder)
        if all(name in commits for name in names):
            files = tuple(commits[name].files[0] for name in names)
            columns = tuple(open_parquet(root, files[0]).schema_arrow.names)
            removes = DROP_REASON in columns
            corpus = corpus.with_sidecar(Sidecar(stage["stage"], columns, removes, files))
        elif stage["op"] in _PACKERS:
            continue
        elif sum(stage["dropped"].values()) or stage["quarantined"]:
            raise RunError(
                "the files that say which documents this stage removed are gone",
                where=folder,
                remedy="run the recipe again: what is missing is made again",
            )
    return corpus
