"""The rules of the house that an import can break: where Ray may be used, and what is pure."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import longctx

ROOT = Path(longctx.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
PURE_ROOMS = {
    *("text", "filter", "dedup", "embed", "cluster", "order", "pack"),
    *("compare", "score", "mixture", "synth", "prefer"),
}
FORBIDDEN_IN_PURE = ("ray", "fsspec", "time", "random", "longctx.engine")
# Writes the windows and their manifest, so it needs commits and paths.
WRITERS = {"pack/output.py"}


def imports(path: Path) -> Iterator[str]:
    """Modules a file imports anywhere in it, as full names."""
    package = ["longctx", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def is_stages(path: Path) -> bool:
    return path.name == "stages.py" or path.name.startswith("stages_")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_engine_io_and_stages_import_ray(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    if room in ("engine", "io") or is_stages(path):
        return
    assert [m for m in imports(path) if is_in(m, "ray")] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_pure_modules_know_no_engine_files_clock_or_global_chance(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    if room not in PURE_ROOMS or is_stages(path):
        return
    allowed = ("longctx.engine",) if name_of(path) in WRITERS else ()
    forbidden = [f for f in FORBIDDEN_IN_PURE if f not in allowed]
    assert [m for m in imports(path) if any(is_in(m, f) for f in forbidden)] == []


def test_walk_sees_every_form_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "order" / "x.py"
    file.parent.mkdir()
    file.write_text(
        "import ray.data as r\n"
        "def f():\n"
        "    from longctx import engine\n"
        "    from ..io import paths\n"
        "    from . import y\n"
    )
    found = set(imports(file))
    assert {"ray.data", "longctx.engine", "longctx.io.paths", "longctx.order.y"} <= found


def loaded_after(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of the packages are loaded in a fresh interpreter after running some code."""
    program = f"{code}\nimport sys\nprint([n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[str] = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    return found


HEAVY = ("ray", "torch", "numba", "faiss", "sentence_transformers", "pyarrow", "numpy", "fsspec")
MODELS = ("torch", "sentence_transformers", "transformers", "faiss", "ray")


def test_importing_the_package_is_cheap() -> None:
    assert loaded_after("import longctx", HEAVY) == []


def test_help_of_the_command_is_cheap() -> None:
    code = (
        "from longctx.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
    )
    assert loaded_after(code, HEAVY) == []


def test_the_probe_can_fail() -> None:
    assert loaded_after("import json", ("json", "ray")) == ["json"]


def test_loading_a_recipe_with_every_op_loads_no_model_and_no_ray(tmp_path: Path) -> None:
    recipe = tmp_path / "all.yaml"
    recipe.write_text(
        "name: all\n"
        "input: [{path: in, source: s}]\n"
        "run_dir: run\n"
        "stages:\n"
        "  - {op: score.heuristics}\n"
        "  - {op: decide, rules: {n_tokens: {min: 1}}}\n"
        "  - {op: dedup.exact}\n"
        "  - {op: dedup.minhash}\n"
        "  - {op: embed}\n"
        "  - {op: dedup.semantic}\n"
        "  - {op: cluster.kmeans}\n"
        "  - {op: order.icp}\n"
        "  - {op: order.path}\n"
        "  - {op: pack}\n"
    )
    code = (
        "from longctx.recipe import load\n"
        "from longctx.registry import OPS, resolve\n"
        "for name in OPS: resolve(name)\n"
        f"load({str(recipe)!r})"
    )
    assert loaded_after(code, MODELS) == []
