"""Where the tokens of a scoring model end in a text, for stages that say something of tokens.

A record may come from anybody, so nothing that it names is fetched, and variables of the
environment may only lead to a folder here.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longctx.errors import LongctxError
from longctx.location import expand
from longctx.report.scores.places import EndsOf


def ends_of(settings: dict[str, Any]) -> EndsOf | None:
    """Ends of tokens in characters, by the tokenizer of a stage's model; null if it is not here."""
    from longctx.text.offsets import token_ends
    from longctx.text.tokenize import load_tokenizer

    try:
        tokenizer = load_tokenizer(str(_folder(str(settings.get("model")))))
    except (LongctxError, OSError, ValueError, KeyError, ImportError):
        return None

    def ends(text: str) -> npt.NDArray[np.int64]:
        return token_ends(tokenizer, tokenizer.encode_batch([text])[0], text)

    return ends


def _folder(name: str) -> Path:
    """The folder of a model that is already here."""
    from longctx.model_folders import model_folder
    from longctx.score.smollm2 import packaged_folder

    if name == "smollm2":
        return packaged_folder()
    if "${" in name:
        folder = Path(expand(name)).expanduser()
        if not folder.is_dir():
            raise ValueError(f"{name} is no folder")
        return folder
    return model_folder(name, owner="", fetch=False)
