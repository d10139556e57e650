"""Run the recipes of `jobs/recipes/orders/` and judge their windows: `make compare-orders`.

The recipes differ in their order and packing only. What comes before is computed once: its
committed stages are copied into the run folders of the others, which then resume from there.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from longctx.recipe import Recipe, load

RECIPES = Path(__file__).parent / "recipes" / "orders"
REPORT = Path("runs/orders/compare.html")
LONGCTX = (sys.executable, "-m", "longctx.cli")


def main() -> int:
    """Run every recipe (or those named on the command line), then compare; an exit code."""
    named = sys.argv[1:] or sorted(path.stem for path in RECIPES.glob("*.yaml"))
    recipes = [RECIPES / f"{name}.yaml" for name in named]
    folders = [Path(load(recipe).body.run_dir) for recipe in recipes]
    done: tuple[Recipe, Path] | None = None
    for recipe, folder in zip(recipes, folders, strict=True):
        if done is not None and not folder.exists():
            _begin_with(*done, load(recipe), folder)
        if code := subprocess.run([*LONGCTX, "run", str(recipe)], check=False).returncode:
            return code
        done = done or (load(recipe), folder)
    runs = [f"{recipe.stem}={folder}" for recipe, folder in zip(recipes, folders, strict=True)]
    command = [*LONGCTX, "compare", *runs, "--report", str(REPORT)]
    return subprocess.run(command, check=False).returncode


def _begin_with(done: Recipe, source: Path, recipe: Recipe, target: Path) -> None:
    """Copy the documents and the stages that two recipes begin with."""
    for name in ("documents", "quarantine", "stages/00-read"):
        if (source / name).exists():
            shutil.copytree(source / name, target / name)
    for name, ours, theirs in zip(recipe.stage_names(), recipe.ops, done.ops, strict=False):
        if ours != theirs:
            return
        shutil.copytree(source / "stages" / name, target / "stages" / name)


if __name__ == "__main__":
    sys.exit(main())
