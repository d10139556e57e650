"""The step of a Map or Model stage: one unit for each part, and the sidecar that comes of it."""

from longctx.engine.commit import fingerprint
from longctx.engine.corpus import Corpus, Sidecar
from longctx.engine.op import Map, Model, Setting
from longctx.engine.units import Step, StepResult, Unit


def counted_columns(corpus: Corpus) -> list[str]:
    """Length columns that the counters of a stage read beside the op's own columns."""
    return [c for c in ("n_tokens", "n_chars") if corpus.has(c)]


def map_step(corpus: Corpus, op: Map | Model, setting: Setting, folder: str) -> Step:
    """Units of a stage with the fingerprints that decide what a resume skips."""
    read = [*op.reads_columns(), *counted_columns(corpus), "source", "license"]
    base = fingerprint([op.fingerprint_fields(), setting.seed, setting.tokenizer_fingerprint])
    units = []
    for i, state in enumerate(corpus.states(read)):
        part = corpus.part(i)
        units.append(Unit(part.name, fingerprint([base, state]), part))
    return Step(setting.run_dir, folder, units)


def sidecar_of(stage: str, op: Map | Model, result: StepResult) -> Sidecar:
    """The finished stage as a sidecar; it removes rows if the op does or any were quarantined."""
    quarantined = any(c.stats["quarantined"] for c in result.commits)
    files = tuple(c.files[0] for c in result.commits)
    return Sidecar(stage, op.writes_columns(), op.removes or quarantined, files)
