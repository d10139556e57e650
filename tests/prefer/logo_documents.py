"""Documents with planted answers: few chunks hold what is asked, many speak of the same keeper."""

from longctx.prefer.logo_rows import Choice, Question

CHUNK = 32
CHOICE = Choice(chunk=CHUNK, chunks=16, max_relevant=8, min_gap=2.0)
ASKED = "Which harbour did keeper Zora{0} name after the amber{0} lantern{0}?"
GOLD = "Port Velvet{0}"
_ANSWER = "Keeper Zora{0} named the harbour Port Velvet{0} after the amber{0} lantern{0} there"
_NEAR = "Keeper Zora{0} looked for the amber{0} lantern{0} above that coast all winter"
_OTHER = "The keeper walked along pier {i} and counted {j} grey boats in fog"


def chunk_of(sentence: str) -> str:
    """One chunk of 32 words: a sentence, and words that stand nowhere else."""
    words = f"{sentence}.".split()
    return " ".join([*words, *(f"q{len(words)}x{k}" for k in range(CHUNK - len(words)))]) + "."


def planted(
    answers: tuple[int, ...] = (5, 33),
    near: tuple[int, ...] = (20,),
    chunks: int = 43,
    tag: str = "",
) -> str:
    """A document of so many chunks: those of `answers` hold the answer, `near` words near it.

    Names end in `tag`, so that no document answers what another is asked.
    """
    told = [
        (_ANSWER if i in answers else _NEAR).format(tag)
        if i in (*answers, *near)
        else _OTHER.format(i=i, j=7 * i + 1)
        for i in range(chunks)
    ]
    return " ".join(map(chunk_of, told))


def asked(doc_id: str = "d", gold: str | None = "Port Velvet") -> Question:
    return Question(
        id=doc_id, text=ASKED.format(""), gold=gold, lang="en", source="s", doc_id=doc_id
    )
