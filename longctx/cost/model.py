"""What a recipe takes at a size it has never run at, from measured coefficients.

Steps in parallel share all cores; steps in one place take one. What an exchange moves crosses the
network once. Nothing is made up: an op without coefficients has no estimate, and GPUs, for which
none were measured, change no figure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from longctx.cost.fit import Coefficients
from longctx.cost.laws import (
    LAWS,
    Size,
    bucket_documents,
    form_of,
    held_by,
    own_bytes,
    remedy_of,
)

Ops = Mapping[str, Mapping[str, Mapping[str, Coefficients]]]


@dataclass(frozen=True)
class Measured:
    """Coefficients by op, form and step, and what a driver and a token take.

    The driver holds `part_bytes` for each part, whose commit counts by source and licence,
    `unit_bytes` for each unit of other steps, and needs `driver_seconds` for any; `busy` is the
    share of the time in which the workers of a run worked; `token_bytes` are UTF-8 bytes of text;
    `when` says date and machine.
    """

    ops: Ops
    part_bytes: float
    unit_bytes: float
    driver_seconds: float
    busy: float
    token_bytes: float
    when: Mapping[str, Any]

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Measured":
        """From the content of `coefficients.json`."""
        ops = {
            op: {
                form: {step: Coefficients(**c) for step, c in steps.items()}
                for form, steps in forms.items()
            }
            for op, forms in value["ops"].items()
        }
        names = ("part_bytes", "unit_bytes", "driver_seconds", "busy", "token_bytes")
        numbers = {n: float(value[n]) for n in names}
        return Measured(ops, when=value["measured"], **numbers)

    def steps(
        self, op: str, settings: Mapping[str, Any], docs: float
    ) -> Mapping[str, Coefficients] | None:
        """The steps of an op in the form that it takes at this size; None if never measured."""
        return self.ops.get(op, {}).get(form_of(op, settings, docs))


@dataclass(frozen=True)
class Cluster:
    """Nodes that are alike: cores, bytes of memory and GPUs of each."""

    nodes: int
    cores: int
    memory: float
    gpus: float = 0

    @property
    def workers(self) -> int:
        return self.nodes * self.cores


@dataclass(frozen=True)
class Limits:
    """Bytes of text in a part, and of rows in a bucket of an exchange."""

    part_bytes: float
    bucket_bytes: float


@dataclass(frozen=True)
class Alone:
    """A step in one place: what it holds there, for how long, and what to do if it does not fit."""

    step: str
    held_bytes: float
    bytes_per_document: float
    seconds: float
    fits: bool
    remedy: str


@dataclass(frozen=True)
class Estimate:
    """What a stage takes: seconds of all cores and of the clock, bytes moved, stored, on one node.

    `units` is what the driver keeps a commit of.
    """

    cpu_seconds: float
    seconds: float
    exchange_bytes: float
    stored_bytes: float
    node_bytes: float
    units: int
    alone: list[Alone] = field(default_factory=list)


def estimate(
    op: str,
    settings: Mapping[str, Any],
    size: Size,
    measured: Measured,
    cluster: Cluster,
    limits: Limits,
) -> Estimate | None:
    """What a stage takes; None where its op was not measured in the form it has at this size."""
    steps = measured.steps(op, settings, size.docs)
    if steps is None:
        return None
    cpu = seconds = moved = stored = node = 0.0
    units, alone = 0, []
    for name, step in steps.items():
        busy = step.fixed + step.cpu * LAWS[step.law](size)
        volume = LAWS[step.volume](size)
        cpu += busy
        moved += step.received * volume
        stored += step.stored * volume
        if step.place == "one":
            added = step.held * LAWS[held_by(op, name)](size)
            held = step.worker + added
            seconds += busy
            node = max(node, held)
            units += 1
            fits = held <= cluster.memory
            remedy = "" if fits else remedy_of(op, name, settings)
            alone.append(Alone(name, held, added / size.docs, busy, fits, remedy))
            continue
        sized = own_bytes(op, name, settings)
        own = sized or _unit_bytes(step, bucket_documents(name, settings), limits)
        count = _units(step, size, volume, own, sized or limits.part_bytes)
        everything = step.received * volume if step.place == "bucket" else size.mb * 1e6
        together = min(cluster.workers, count)
        per_node = min(cluster.cores, ceil(together / cluster.nodes))
        seconds += max(busy / (together * measured.busy), count * measured.driver_seconds)
        node = max(node, per_node * (step.worker + step.per_byte * min(own, everything)))
        units += count
    return Estimate(cpu, seconds, moved, stored, node, units, alone)


def _unit_bytes(step: Coefficients, documents: float | None, limits: Limits) -> float:
    """Bytes of the largest unit: of a part, a bucket, or a bucket of so many documents."""
    if step.place != "bucket":
        return limits.part_bytes
    return limits.bucket_bytes if documents is None else step.received * documents


def _units(step: Coefficients, size: Size, volume: float, own: float, text_bytes: float) -> int:
    """How many units a step has that runs in parallel: buckets, or pieces of so much text."""
    if step.place == "bucket" and step.received:
        return max(1, ceil(step.received * volume / own))
    return max(1, ceil(size.mb * 1e6 / text_bytes))
