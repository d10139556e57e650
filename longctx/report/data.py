"""What the report shows, as plain data: gathered from a run folder, drawn by `figures` and `html`.

Nothing here knows Ray or the file system. Every field is small (counts, histograms, a few
snippets); the report never carries a corpus.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from longctx.report.mixture.data import MixtureData

if TYPE_CHECKING:
    from longctx.report.synth.data import SynthData


@dataclass(frozen=True)
class StageRow:
    """One line of the funnel: what happened to the rows at one stage.

    rows_in = rows_out + sum(dropped.values()) + quarantined. Tokens are null before they are known.
    """

    stage: str
    op: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int]
    quarantined: int
    seconds: float
    chars_out: int | None = None
    tokens_out: int | None = None
    parts: int = 0
    parts_skipped: int = 0


@dataclass(frozen=True)
class Histogram:
    """Counts between edges: len(edges) == len(counts) + 1; `unit` names the x axis."""

    edges: list[float]
    counts: list[int]
    unit: str


@dataclass(frozen=True)
class ClusterMember:
    """One document of a duplicate cluster, with the beginning of its text."""

    doc_id: str
    source: str
    kept: bool
    similarity: float | None
    snippet: str


@dataclass(frozen=True)
class DuplicateCluster:
    """A large duplicate cluster; `members` may be a sample of its `size` documents.

    It is one of the largest in `files` (looked into, there are) of the stage's clusters.
    """

    stage: str
    size: int
    members: list[ClusterMember]
    files: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Neighbours:
    """Cosine of consecutive documents along the tours, and along a random order."""

    ordered: Histogram
    random: Histogram
    mean_ordered: float
    mean_random: float
    jumps: float
    bound: float | None = None


@dataclass(frozen=True)
class LengthRow:
    """Windows of one of several lengths; `share` of all tokens as asked for and as reached."""

    length: int
    windows: int
    tokens: int
    fill: float
    split_docs: float
    coherence: float | None
    share: float | None
    share_reached: float | None


@dataclass(frozen=True)
class WindowAudit:
    """Windows as written (packing audit); shares are in 0..1.

    `length` is the longest where windows have several, which `lengths` then lists.
    """

    length: int
    strategy: str
    windows: int
    windows_lower_bound: int
    tokens: int
    fill: float
    fill_histogram: Histogram
    docs_per_window: Histogram
    docs_per_window_mean: float
    split_docs: float
    split_short: float
    one_document: float
    several_sources: float
    coherence: float | None
    adjacent: float | None
    tokens_dropped: dict[str, int]
    span_ge: dict[str, float]
    lengths: list[LengthRow] = field(default_factory=list)


@dataclass(frozen=True)
class Exported:
    """Files of documents that `export` wrote; `order_by` is "" in the order of the corpus."""

    files: int
    documents: int
    bytes: int
    format: str
    order_by: str = ""


@dataclass(frozen=True)
class PackedTurns:
    """Conversations that `pack.turns` packed, `length` tokens at most in a pack."""

    files: int
    packs: int
    length: int
    sequences: int
    tokens: int
    fill: float
    bytes: int


@dataclass(frozen=True)
class Mix:
    """Tokens by name (source or licence): in the documents read, and in what was made of them."""

    name: str
    tokens_read: int
    tokens_packed: int
    docs_read: int
    docs_packed: int


@dataclass(frozen=True)
class ScoreRow:
    """A main score of a stage, and the page (relative to the report) that tells more of it.

    `scored` rows have it, the others have not by reason; `sampled` says that not all were looked
    at. A stage without any number has one row whose `column` is empty.
    """

    stage: str
    page: str
    column: str
    scored: int
    nulls: dict[str, int]
    p5: float | None
    median: float | None
    p95: float | None
    sampled: bool = False


@dataclass(frozen=True)
class ReportData:
    """Everything the report draws. An absent section is null or empty and is then left out.

    `correlations` is the page of the correlations between `scores`, relative to the report.
    """

    name: str
    status: str
    started: str
    seconds: float
    run_dir: str
    output: str
    seed: int
    fingerprint: str
    stages: list[StageRow]
    lengths_before: Histogram | None = None
    lengths_after: Histogram | None = None
    duplicates_by_source: dict[str, dict[str, int]] = field(default_factory=dict)
    duplicate_clusters: list[DuplicateCluster] = field(default_factory=list)
    neighbours: Neighbours | None = None
    windows: WindowAudit | None = None
    exported: Exported | None = None
    turns: PackedTurns | None = None
    synthesis: "SynthData | None" = None
    sources: list[Mix] = field(default_factory=list)
    licenses: list[Mix] = field(default_factory=list)
    quarantine: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    scores: list[ScoreRow] = field(default_factory=list)
    correlations: str = ""
    mixture: MixtureData | None = None

    @property
    def writes_output(self) -> bool:
        """Whether the recipe ends in windows, packs, files of documents or rows made of them."""
        if not self.stages:
            return False
        return self.stages[-1].op in ("pack", "pack.turns", "export") or self._ends_in_rows

    @property
    def _ends_in_rows(self) -> bool:
        return bool(self.stages) and self.stages[-1].op.startswith(("synth.", "prefer."))

    @property
    def made(self) -> str:
        """What became of the tokens that are left: they were "packed", "exported" or "kept"."""
        if not self.writes_output or self._ends_in_rows:
            return "kept"
        return "packed" if self.exported is None else "exported"
