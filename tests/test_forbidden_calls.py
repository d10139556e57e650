"""What may not be called anywhere in the project: what runs code that stands in data.

Every module of `longctx/` and `jobs/` is walked. Calls and imports are compared by their full
names, whatever they were imported as; each exception is listed with the reason why it is safe.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import longctx

ROOT = Path(longctx.__file__).parents[1]
MODULES = sorted(p for folder in ("longctx", "jobs") for p in (ROOT / folder).rglob("*.py"))

# Modules whose very use is a question: loaders of objects, runners of code.
IMPORTS = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "ray.cloudpickle", "joblib", "skops"),
    *("shelve", "marshal", "jsonpickle", "runpy", "imp", "code", "codeop"),
}
CALLS = {
    *("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"),
    *("importlib.import_module", "importlib.util.spec_from_file_location"),
    *("torch.load", "torch.jit.load", "torch.hub.load", "pandas.read_pickle"),
    *("yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("tempfile.mktemp", "shutil.unpack_archive"),
    *("pyarrow.ipc.open_file", "pyarrow.ipc.open_stream", "pyarrow.ipc.read_schema"),
    "ray.data.read_parquet",
}
# Benchmarks read the project's own corpora; in the package there is one door for Parquet files.
OF_THE_PACKAGE = {
    *("pyarrow.parquet.ParquetFile", "pyarrow.parquet.read_table", "pyarrow.parquet.read_schema"),
    *("pyarrow.parquet.read_metadata", "pyarrow.parquet.ParquetDataset", "pyarrow.dataset.dataset"),
}
METHODS = {"extractall", "extract", "read_pickle", "to_pickle"}
# Keywords that turn a safe call into another one; False is what is wanted of each.
KEYWORDS = {"allow_pickle", "trust_remote_code", "shell"}
ASKED = {"yaml.load"}  # safe or not by its loader

ALLOWED = {
    ("longctx/engine/units.py", "pickle"): (
        "units travel from the driver to the workers of one run through Ray, whose own transport "
        "is this; they are never written to or read from storage"
    ),
    ("longctx/registry.py", "importlib.import_module"): (
        "modules of a fixed table; a recipe's op only picks a row of it"
    ),
    ("longctx/recipe_errors.py", "yaml.load"): "with a subclass of SafeLoader",
    ("longctx/io/parquet_files.py", "pyarrow.parquet.ParquetFile"): (
        "the one door: files with pickled columns were refused before"
    ),
}


def names_of_imports(tree: ast.AST) -> dict[str, str]:
    """What each imported name of a module stands for, as a full name."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                found[bound] = alias.name if alias.asname else bound
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def full_name(node: ast.expr, names: dict[str, str]) -> str:
    """`np.load` as `numpy.load`; the parts that are no names are left empty."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, names)}.{node.attr}"
    return ""


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
    return []


def questionable(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything in a module that needs a reason."""
    tree = ast.parse(source)
    names = names_of_imports(tree)
    for node in ast.walk(tree):
        for module in imported(node):
            if module in IMPORTS or module.partition(".")[0] in IMPORTS:
                yield node.lineno, module  # type: ignore[attr-defined]
        if not isinstance(node, ast.Call):
            continue
        name = full_name(node.func, names)
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        given = {k.arg: k.value for k in node.keywords if k.arg}
        if name in CALLS | OF_THE_PACKAGE | ASKED or method in METHODS:
            yield node.lineno, name or method
        for keyword in KEYWORDS & given.keys():
            value = given[keyword]
            if isinstance(value, ast.Constant) and value.value is not False:
                yield node.lineno, f"{keyword}={value.value}"


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_nothing_runs_code_that_stands_in_data(path: Path) -> None:
    passed = OF_THE_PACKAGE if place(path).startswith("jobs/") else set()
    found = questionable(path.read_text(encoding="utf-8"))
    assert [(i, n) for i, n in found if n not in passed and (place(path), n) not in ALLOWED] == []


def test_every_exception_is_still_needed() -> None:
    used = {(place(p), n) for p in MODULES for _, n in questionable(p.read_text(encoding="utf-8"))}
    assert set(ALLOWED) - used == set()


def test_yaml_is_loaded_by_a_safe_loader() -> None:
    import yaml

    from longctx.recipe_errors import _UniqueKeys

    assert issubclass(_UniqueKeys, yaml.SafeLoader)
    assert not issubclass(_UniqueKeys, yaml.UnsafeLoader | yaml.FullLoader)


PLANTED = {
    "import pickle": "pickle",
    "from pickle import loads": "pickle",
    "from ray import cloudpickle": "ray.cloudpickle",
    "import ray.cloudpickle as cp": "ray.cloudpickle",
    "def f():\n    eval('1')": "eval",
    "import torch as t\nt.load('x')": "torch.load",
    "from torch import load as l\nl('x')": "torch.load",
    "import importlib as i\ni.import_module(x)": "importlib.import_module",
    "import numpy as np\nnp.load(x, allow_pickle=True)": "allow_pickle=True",
    "AutoModel.from_pretrained(x, trust_remote_code=True)": "trust_remote_code=True",
    "import subprocess\nsubprocess.run(x, shell=True)": "shell=True",
    "import pyarrow.parquet as pq\npq.ParquetFile(x)": "pyarrow.parquet.ParquetFile",
    "import tarfile\ntarfile.open(x).extractall(y)": "extractall",
    "import yaml\nyaml.load(x, Loader=yaml.Loader)": "yaml.load",
}


@pytest.mark.parametrize("source", PLANTED)
def test_the_walk_sees_every_form(source: str) -> None:
    assert PLANTED[source] in {name.lstrip(".") for _, name in questionable(source)}


def test_the_walk_passes_what_is_safe() -> None:
    source = (
        "import re, numpy as np, yaml, json\n"
        "re.compile('x'); model.eval(); np.load(x); np.load(x, allow_pickle=False)\n"
        "json.load(x); yaml.safe_load(x); f(trust_remote_code=False, shell=False)\n"
    )
    assert list(questionable(source)) == []
