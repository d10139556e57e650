"""What units of `synth.longmit` do: ask about their paths, and link questions.

A unit is some paths. It reads their texts from the file that the step `library` left for it and
what earlier steps said from theirs; what it asks is made anew from both, so units know nothing of
one another. Rows are made in `stages_longmit_rows`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.engine.commit import FileRef
from longctx.engine.op import Setting
from longctx.engine.steps import read_table
from longctx.engine.units import Sink
from longctx.synth import longmit_chains as chains
from longctx.synth.items import Item
from longctx.synth.longmit import SingleQA
from longctx.synth.longmit_chains import Chains, from_reply
from longctx.synth.longmit_path import (
    MERGE,
    SINGLE_STEPS,
    VERIFY,
    Path,
    PathDoc,
    Said,
    kind_of,
    single_items,
    singles_of,
    vector_texts,
)
from longctx.synth.stages_in2_work import write_replies
from longctx.synth.stages_work import (
    AskWork,
    Groups,
    replies_of,
)

if TYPE_CHECKING:
    from longctx.embed.chunked import Encoder
    from longctx.synth.stages_longmit import SynthLongMIT

CHAINS = "chains"
# Tokens of a passage's heading and of the blank lines around it.
_HEADING = 8
F32 = npt.NDArray[np.float32]


class Unit(NamedTuple):
    """The paths of a unit, and what the steps so far have said of them."""

    paths: list[Path]
    said: Said

    def singles(self, path: Path) -> list[SingleQA]:
        """The single questions of a path."""
        return singles_of(path, self.said)

    def chains(self, path: Path) -> Chains:
        """The chains of a path."""
        return from_reply(self.said[CHAINS][path.path_id])


def unit_of(run_dir: str, groups: Groups) -> Unit:
    """Paths in their order, with all replies."""
    brought = groups[0][1]
    table = read_table(run_dir, FileRef(*brought["docs"]))
    found: dict[str, Path] = {}
    names = {rank: path_id for path_id, rank in brought["paths"]}
    for row in table.to_pylist():
        path_id = names[row["path"]]
        path = found.setdefault(path_id, Path(path_id, row["lang"], []))
        described = (row["id"], row["source"], row["n_tokens"], row["cluster"])
        path.docs.append(PathDoc(*described, row["text"], row["chunks"]))
    return Unit(list(found.values()), replies_of(run_dir, groups))


class PathAskWork(AskWork):
    """Work of a stage that asks a model: what it asks is made from documents and replies."""

    def items(self, groups: Groups) -> list[Item]:
        return items_of_step(self.stage, unit_of(self.setting.run_dir, groups))


def items_of_step(step: str, unit: Unit) -> list[Item]:
    """What a step asks about a unit."""
    if step in SINGLE_STEPS:
        return single_items(step, unit.paths, unit.said)
    return [item for path in unit.paths for item in _linked_items(step, path, unit)]


def _linked_items(step: str, path: Path, unit: Unit) -> list[Item]:
    singles, linked = unit.singles(path), unit.chains(path)
    if kind_of(step) == MERGE:
        hop = int(step.rpartition("-")[2])
        return chains.merge_items(hop, path, singles, linked, unit.said)
    candidates, _ = chains.candidates_of(singles, linked, unit.said)
    if step == VERIFY:
        return chains.verify_items(path, candidates)
    passed = [one for one, _ in chains.approved(path, candidates, unit.said)]
    return chains.necessity_items(path, passed)


@lru_cache(maxsize=1)
def _encoder(model: str) -> "Encoder":
    from longctx.embed.encoders import load_encoder

    return load_encoder(model)


def vectors_of(op: "SynthLongMIT", lang: str, texts: Sequence[str]) -> F32:
    """Unit vectors float32[n, d] of texts; zero for a language that the model does not know."""
    # One path at a time, whatever the units are: a batch might show in the last bit.
    found: F32 = _encoder(op.model).encode(texts)[0]
    return found if op.encoder().knows([lang])[0] else np.zeros_like(found)


@dataclass(frozen=True)
class SimilarWork:
    """Work of the step `similar`: how alike questions of different documents are, counted."""

    op: "SynthLongMIT"
    setting: Setting

    def __call__(self, payload: tuple[str, Groups], sink: Sink) -> dict[str, Any]:
        unit = unit_of(self.setting.run_dir, payload[1])
        found: Counter[int] = Counter()
        for path in unit.paths:
            singles = unit.singles(path)
            X = vectors_of(self.op, path.lang, vector_texts(singles))
            found += chains.across(chains.similarities(X), [one.doc_id for one in singles])
        return {"stats": {"across": {str(at): n for at, n in sorted(found.items())}}}


@dataclass(frozen=True)
class ChainsWork:
    """Work of the step `chains`: questions of a path linked by their similarity."""

    op: "SynthLongMIT"
    setting: Setting
    folder: str
    bounds: tuple[float, float]  # of a link

    def __call__(self, payload: tuple[str, Groups], sink: Sink) -> dict[str, Any]:
        name, groups = payload
        unit = unit_of(self.setting.run_dir, groups)
        found = {path.path_id: self._linked(path, unit.singles(path)) for path in unit.paths}
        replies = {path_id: chains.as_reply(linked) for path_id, linked in found.items()}
        write_replies(sink, f"{self.folder}/{name}.parquet", replies)
        told = {
            "paths": len(found),
            "questions": sum(len(unit.singles(path)) for path in unit.paths),
            "starts": sum(len(linked.starts) for linked in found.values()),
            "chains": sum(len(linked.chains) for linked in found.values()),
            "repeated": sum(linked.repeated for linked in found.values()),
        }
        return {"stats": told}

    def _linked(self, path: Path, singles: Sequence[SingleQA]) -> Chains:
        op = self.op
        X = vectors_of(op, path.lang, vector_texts(singles))
        lo, hi = self.bounds
        return chains.chains_of(
            path,
            singles,
            chains.similarities(X),
            self.setting.seed,
            kinds=op.kinds,
            mode=op.chain_mode,
            starts=op.starts,
            max_hop=op.max_hop,
            lo=lo,
            hi=hi,
        )
