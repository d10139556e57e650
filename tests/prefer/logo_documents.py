"""Documents with planted answers: few chunks hold what is asked, many speak of the same keeper."""

from longctx.prefer.logo_rows import Choice, Question

CHUNK = 32
CHOICE = Choice(chunk=CHUNK, chunks=16, max_relevant=8, min_gap=2.0)
ASKED = "Which harbour did keeper Zora name after the amber lantern?"
GOLD = "Port Velvet"
_ANSWER = "Keeper Zora named the harbour Port Velvet after the amber lantern there"
_NEAR = "Keeper Zora looked for the amber lantern above that harbour all winter"
_OTHER = "The keeper walked along pier {i} and counted {j} grey boats in fog"


def chunk_of(sentence: str) -> str:
    """One chunk of 32 words: a sentence, and words that stand nowhere else."""
    words = f"{sentence}.".split()
    return " ".join([*words, *(f"q{len(words)}x{k}" for k in range(CHUNK - len(words)))]) + "."


def planted(
    answers: tuple[int, ...] = (5, 33), near: tuple[int, ...] = (20,), chunks: int = 43
) -> str:
    """A document of so many chunks: those of `answers` hold the answer, `near` words near it."""
    told = [
        _ANSWER if i in answers else _NEAR if i in near else _OTHER.format(i=i, j=7 * i + 1)
        for i in range(chunks)
    ]
    return " ".join(map(chunk_of, told))


def asked(doc_id: str = "d", gold: str | None = GOLD, question: str = ASKED) -> Question:
    return Question(id=doc_id, text=question, gold=gold, lang="en", source="s", doc_id=doc_id)
