"""What a stage is told about its run, and where it lies; the same for running and planning."""

from longctx.engine.op import Setting
from longctx.io import paths
from longctx.recipe import Recipe


def setting_for(
    recipe: Recipe, stage: str, run_dir: str, output: str, tokenizer_fingerprint: str
) -> Setting:
    """The Setting of one stage of a run."""
    body = recipe.body
    return Setting(
        seed=body.seed,
        tokenizer=body.tokenizer.path,
        stage=stage,
        run_dir=run_dir,
        output=output,
        formats=tuple(body.output.format),
        recipe_fingerprint=recipe.fingerprint,
        tokenizer_fingerprint=tokenizer_fingerprint,
    )


def stage_folder(run_dir: str, stage: str) -> str:
    """Where a stage commits."""
    return paths.join(run_dir, "stages", stage)
