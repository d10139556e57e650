"""Named entities by spaCy: what LOGO's paper (arXiv 2410.18533) counts to find relevant chunks.

Optional: spaCy and one of its pipelines have to be installed, and nothing is loaded before an op
asks for it. Unlike the released code, verbs are no entities, and "the Louvre" and "Louvre" are one.
Costs about a millisecond for a chunk of 512 tokens with the small pipelines, and much more with
others. Lost: whatever the pipeline does not know; languages other than its own.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from longctx.errors import RunError

Entities = Callable[[Sequence[str]], list[set[str]]]
_ARTICLE = re.compile(r"^(?:the|an?)\s+")
_VERBS = frozenset({"VERB", "AUX"})


def entities_of(doc: Any) -> set[str]:
    """The entities of a parsed text: case-folded, without a leading article, no verbs alone."""
    found = set()
    for entity in doc.ents:
        if all(token.pos_ in _VERBS for token in entity):
            continue
        name = _ARTICLE.sub("", " ".join(entity.text.split()).casefold())
        found |= {name} if name else set()
    return found


@lru_cache(maxsize=2)
def spacy_entities(model: str) -> Entities:
    """What finds entities with an installed pipeline of spaCy, kept per process.

    Raises RunError where spaCy or the pipeline is not installed.
    """
    try:
        import spacy
    except ImportError:
        raise RunError(
            "evaluator spacy needs the package spaCy, which is not installed",
            where="evaluator",
            remedy="install it on every node (`pip install 'longctx[entities]'`) with its pipeline "
            f"(`python -m spacy download {model}`), or take evaluator: terms",
        ) from None
    # A path would run what its configuration names; an installed pipeline was chosen before.
    if model not in spacy.util.get_installed_models():
        raise RunError(
            f"no installed pipeline of spaCy is called {model!r}",
            where="spacy_model",
            remedy="install one on every node, as `python -m spacy download en_core_web_sm` does, "
            "and give its name, not a path",
        )
    pipeline = spacy.load(model)
    return lambda texts: [entities_of(doc) for doc in pipeline.pipe(texts)]
