"""LOGO's rows as a trainer reads them: ids, positions, labels and masks of three answers.

A triple is kept compactly, with its context once (`TOKENS`), and expanded here: three sequences
that share every token and position up to the answer (arXiv 2410.18533). Sequences of a row are
equally long by padding on the right; padding is masked, has no label, and repeats the last
position, since a position that falls back to 0 is read as the beginning of a packed sequence by
some kernels. Labels stand on the answer's tokens only. Nothing is ever cut: the released code's
collator takes over-long rows out of the middle, which moves text to positions of other text. Linear
in the tokens, three times those of the compact form. Lost: nothing; triples that are too long are
rejects.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.pack.boundaries import IGNORE
from longctx.prefer.logo import SYSTEM
from longctx.prefer.logo_calls import SIDES
from longctx.prefer.logo_positions import Mode, Positions, positions
from longctx.synth.draw import generator
from longctx.synth.rows import Reject
from longctx.synth.tokens import TokenCounter

I32 = npt.NDArray[np.int32]
Tokens = Mapping[str, Any]

WINDOW, ROOM, MAX_SEQ = 65_536, 512, 10_000
VARIANTS, SPARSE_SHARE = 2, 0.1
# Names of the three sequences in the columns of a training row, by side.
NAMES = dict(zip(SIDES, ("chosen", "reject_1", "reject_2"), strict=True))
FIELDS = ("input_ids", "attention_mask", "position_ids", "labels")
_IDS = pa.list_(pa.int32())
TOKENS = pa.struct(
    {
        "prefix": _IDS,
        "chunks": pa.list_(_IDS),
        "question": _IDS,
        **dict.fromkeys(SIDES, _IDS),
    }.items()
)
WINDOWS = pa.struct(
    {
        **dict.fromkeys(("K", "Q", "max_seq"), pa.int32()),
        "mode": pa.string(),
        "sparse_share": pa.float64(),
    }.items()
)
TRAIN = pa.schema(
    {
        "id": pa.string(),
        "row_id": pa.string(),
        "variant": pa.int32(),
        "mode": pa.string(),
        **{f"{name}_{field}": _IDS for name in NAMES.values() for field in FIELDS},
    }.items()
)


class Frame(NamedTuple):
    """Ids of the turns around the texts: those of a chat template, or of a plain transcript.

    `before` opens the system's turn, `between` closes it and opens the user's, `after` closes that
    and opens the assistant's; `end` closes the answer.
    """

    before: Sequence[int]
    between: Sequence[int]
    after: Sequence[int]
    end: Sequence[int]


class Window(NamedTuple):
    """Where rows are put: K indices, the last Q of them for question and answer, how many tokens.

    `mode` is the usual one; `sparse_share` of the variants are sparse instead.
    """

    K: int = WINDOW
    Q: int = ROOM
    max_seq: int = MAX_SEQ
    mode: Mode = "continuous"
    sparse_share: float = SPARSE_SHARE


def plain_frame(counter: TokenCounter) -> Frame:
    """Turns parted by blank lines; answers end with the end of text, where the tokenizer has it."""
    line = counter.encode("\n\n").ids.tolist()
    bos, eos = counter.bos_id, counter.eos_id
    return Frame([] if bos is None else [bos], line, line, [] if eos is None else [eos])


def tokens_of(
    system: str,
    chunks: Sequence[str],
    question: str,
    answers: Mapping[str, str],
    counter: TokenCounter,
    frame: Frame,
) -> Tokens:
    """The compact form of a triple; a line break stands behind every chunk, two behind the last.

    `question` is what the user's turn says behind the context.
    """

    def ids(text: str) -> list[int]:
        return counter.encode(text).ids.tolist()

    return {
        "prefix": [*frame.before, *ids(system), *frame.between],
        "chunks": [ids(f"{chunk}\n") for chunk in chunks],
        "question": [*ids(f"\n{question}"), *frame.after],
        **{side: [*ids(answers[side]), *frame.end] for side in SIDES},
    }


def length_problem(tokens: Tokens, window: Window) -> Reject | None:
    """`qa_too_long` where question and longest answer do not fit, `too_long` for the rest."""
    last = len(tokens["question"]) + max(len(tokens[side]) for side in SIDES)
    if last > window.Q:
        said = f"question and answer have {last} tokens, {window.Q} is the room"
        return Reject("qa_too_long", said)
    lens = lengths(tokens)
    total = len(tokens["prefix"]) + sum(lens) + window.Q
    if total > window.max_seq:
        return Reject("too_long", f"{total} tokens with the room, {window.max_seq} is the most")
    slot = (window.K - len(tokens["prefix"]) - window.Q) // len(lens)
    if max(lens) > slot:
        return Reject("too_long", f"a chunk of {max(lens)} tokens, a slot has {slot}")
    return None


def lengths(tokens: Tokens) -> list[int]:
    """Tokens of each chunk, with the line break behind it."""
    return [len(ids) for ids in tokens["chunks"]]


def draw(
    lens: Sequence[int], prefix: int, row_id: str, variant: int, seed: int, window: Window
) -> tuple[Mode, Positions]:
    """Mode and positions of a variant: a function of the seed and of what the row is."""
    rng = generator(seed, SYSTEM, f"variant/{variant}", row_id)
    mode: Mode = "sparse" if rng.random() < window.sparse_share else window.mode
    return mode, positions(lens, prefix, window.Q, window.K, mode, rng=rng)


def expand(tokens: Tokens, places: Positions, pad_id: int = 0) -> dict[str, I32]:
    """The twelve columns of a training row, int32[n] each, n the same for all three sequences."""
    context = [*tokens["prefix"], *(i for ids in tokens["chunks"] for i in ids)]
    asked = [*context, *tokens["question"]]
    longest = max(len(tokens[side]) for side in SIDES)
    behind = places.question + np.arange(len(tokens["question"]) + longest)
    where = np.concatenate([places.context, behind])
    row: dict[str, I32] = {}
    for side, name in NAMES.items():
        answer = tokens[side]
        pad, n = longest - len(answer), len(asked) + len(answer)
        columns = {
            "input_ids": [*asked, *answer, *[pad_id] * pad],
            "attention_mask": [*[1] * n, *[0] * pad],
            "position_ids": np.append(where[:n], np.full(pad, where[n - 1])),
            "labels": [*[IGNORE] * len(asked), *answer, *[IGNORE] * pad],
        }
        row |= {f"{name}_{f}": np.asarray(columns[f], dtype=np.int32) for f in FIELDS}
    return row


def train_rows(row: Mapping[str, Any], pad_id: int = 0) -> list[dict[str, Any]]:
    """The training rows of a text row, one for each of its variants, in the row's window."""
    tokens, seed, window = row["tokens"], row["seed"], Window(**row["window"])
    found = []
    for k in range(len(row["modes"])):
        prefix = len(tokens["prefix"])
        mode, places = draw(lengths(tokens), prefix, row["id"], k, seed, window)
        own = {"id": f"{row['id']}-{k}", "row_id": row["id"], "variant": k, "mode": mode}
        found.append({**own, **expand(tokens, places, pad_id)})
    return found


def collate(
    rows: Sequence[Mapping[str, Any]], max_seq: int = MAX_SEQ, pad_id: int = 0
) -> dict[str, I32]:
    """A batch: each column of the rows as int32[rows, n], padded on the right as rows are.

    Raises ValueError for a row longer than `max_seq`: a cut would move its answer.
    """
    sizes = [len(row[f"chosen_{FIELDS[0]}"]) for row in rows]
    if max(sizes) > max_seq:
        raise ValueError(f"a row of {max(sizes)} tokens; max_seq is {max_seq}, and none is cut")
    fill = {"input_ids": pad_id, "attention_mask": 0, "labels": IGNORE}
    batch = {}
    for name in NAMES.values():
        for column in FIELDS:
            key = f"{name}_{column}"
            values = [np.asarray(row[key], dtype=np.int32) for row in rows]
            made = [
                np.append(v, np.full(max(sizes) - len(v), fill.get(column, v[-1]))) for v in values
            ]
            batch[key] = np.stack(made).astype(np.int32)
    return batch


def sound(row: Mapping[str, Any], window: Window) -> list[str]:
    """What is wrong with a training row, by name; nothing for a sound one."""
    found = []
    columns = {name: {f: np.asarray(row[f"{name}_{f}"]) for f in FIELDS} for name in NAMES.values()}
    first = next(iter(columns.values()))
    asked = int(np.flatnonzero(first["labels"] != IGNORE)[0])
    for own in columns.values():
        n = int(own["attention_mask"].sum())
        places, labels = own["position_ids"], own["labels"]
        if len({len(values) for values in own.values()} | {len(first["labels"])}) > 1:
            found.append("unequal_lengths")
        if (np.diff(places[:n]) <= 0).any() or int(places.max()) >= window.K:
            found.append("positions")
        if (labels[asked:n] != own["input_ids"][asked:n]).any():
            found.append("labels")
        if (labels[:asked] != IGNORE).any() or (labels[n:] != IGNORE).any():
            found.append("labels")
        shared = (own[f][:asked] == first[f][:asked] for f in ("input_ids", "position_ids"))
        if not all(bool(same.all()) for same in shared):
            found.append("unshared_context")
    return sorted(set(found))


def row_group(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Training rows as a table of `TRAIN`."""
    columns = {name: [row[name] for row in rows] for name in TRAIN.names}
    arrays = [pa.array(columns[f.name], f.type) for f in TRAIN]
    return cast(pa.Table, pa.Table.from_arrays(arrays, schema=TRAIN))
