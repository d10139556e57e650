"""Folders with models from anybody: what is loaded from them is data, never code.

Weights are safetensors only, since older formats are pickles, which run code when they are read.
Modules of a sentence-transformers model are those of the library that only compute: its config
names classes, and some of them read pickles of their own. From the hub come configurations,
vocabularies and safetensors, and nothing else.
"""

import hashlib
import json
from pathlib import Path, PurePosixPath

from longctx.errors import RunError

_PICKLED = frozenset(
    {".bin", ".ckpt", ".h5", ".joblib", ".msgpack", ".pickle", ".pkl", ".pt", ".pth", ".skops"}
)
_MODULES = frozenset(
    {"Transformer", "Pooling", "Normalize", "Dense", "Dropout", "LayerNorm", "StaticEmbedding"}
)
_DATA = ("*.json", "*.safetensors", "*.txt", "*.model")
_CODE = "*.py"
# The names that loaders look for; beside any other they would take the pickles.
_SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_NOT_OURS = ("onnx/*", "openvino/*")
_SAMPLED = 1 << 20


def model_folder(
    name: str,
    *,
    owner: str = "sentence-transformers/",
    trust_remote_code: bool = False,
    fetch: bool = True,
) -> Path:
    """The local folder of a model: a folder as it is, or the files of a Hugging Face name.

    `owner` stands before a name that has none. Without `fetch` only what is in the local cache
    counts. Raises what the hub's client raises.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    found = snapshot_download(
        name if "/" in name else f"{owner}{name}",
        allow_patterns=[*_DATA, _CODE] if trust_remote_code else [*_DATA],
        ignore_patterns=[*_NOT_OURS],
        local_files_only=not fetch,
    )
    return Path(found)


def context_length(folder: Path) -> int | None:
    """Tokens that the model of a folder reads at once, as its configuration says; None if not."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        return int(config.get("text_config", config)["max_position_embeddings"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def folder_digest(folder: Path) -> str:
    """16 hex digits that tell the weights and configuration of models apart.

    Of each file of weights its size and the first and last megabyte count: all of a large model
    would take minutes to read, and training changes every tensor.
    """
    found = hashlib.sha256()
    for file in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        if not file.is_file():
            continue
        found.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            found.update(content.read(_SAMPLED))
            content.seek(-min(_SAMPLED, file.stat().st_size), 2)
            found.update(content.read())
    return found.hexdigest()[:16]


def check_folder(folder: Path, where: str, *, trust_remote_code: bool = False) -> None:
    """Raise RunError for weights that are pickles, and for module classes that may run code.

    `trust_remote_code` allows any class, never pickles.
    """
    places = [folder]
    for kind, path in _modules(folder, where):
        package, _, name = kind.rpartition(".")
        ours = package.split(".")[0] == "sentence_transformers" and name in _MODULES
        if not ours and not trust_remote_code:
            raise RunError(
                f"the model {folder} is made of {kind}, which may run code",
                where=where,
                remedy=f"use a model of {', '.join(sorted(_MODULES))}; for one whose code you have "
                "read and trust, set `trust_remote_code: true` in the stage",
            )
        if ".." in PurePosixPath(path).parts or PurePosixPath(path).is_absolute():
            raise RunError(
                f"the model {folder} names {path!r}, which is outside of it",
                where=where,
                remedy="do not use this model",
            )
        places.append(folder / path)
    for place in places:
        _check_weights(place, where)


def _modules(folder: Path, where: str) -> list[tuple[str, str]]:
    """Class and folder of each module; none for a plain transformer."""
    file = folder / "modules.json"
    if not file.is_file():
        return []
    try:
        return [(str(m["type"]), str(m["path"])) for m in json.loads(file.read_bytes())]
    except (ValueError, TypeError, KeyError):
        raise RunError(
            "this is not a list of modules",
            where=f"{where}: {file}",
            remedy="fetch the model again",
        ) from None


def _check_weights(place: Path, where: str) -> None:
    files = [f for f in place.iterdir() if f.is_file()] if place.is_dir() else []
    pickled = sorted(f.name for f in files if f.suffix in _PICKLED)
    if pickled and not any(f.name in _SAFE_WEIGHTS for f in files):
        raise RunError(
            f"the weights in {place} are pickled ({pickled[0]}): reading them could run code",
            where=where,
            remedy="give the model as safetensors: whoever trusts it loads it once and calls "
            "`save_pretrained`",
        )
