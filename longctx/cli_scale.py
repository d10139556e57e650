"""`longctx plan` for another size on another cluster: arguments, and what they print."""

import argparse
import json
from typing import TYPE_CHECKING

from longctx.arguments import amount, byte_size, positive, show
from longctx.errors import RecipeError

if TYPE_CHECKING:
    from longctx.recipe import Recipe

_NAMES = ("docs", "tokens_per_doc", "nodes", "cores_per_node", "memory_per_node", "gpus", "json")


def scale_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of which each shows what the recipe would take somewhere else."""
    scale = parser.add_argument_group("another size or cluster: what the recipe would take there")
    scale.add_argument("--docs", type=amount, metavar="N", help="documents, such as 1e9")
    scale.add_argument(
        "--tokens-per-doc",
        type=amount,
        metavar="N",
        help="length of the mean document (default: that of the inputs)",
    )
    scale.add_argument("--nodes", type=positive, metavar="N", help="nodes (default 1)")
    scale.add_argument(
        "--cores-per-node", type=positive, metavar="N", help="default: those of this machine"
    )
    scale.add_argument(
        "--memory-per-node",
        type=byte_size,
        metavar="SIZE",
        help="such as 256GB (default: that of this machine)",
    )
    scale.add_argument("--gpus", type=positive, metavar="N", help="GPUs of the whole cluster")
    scale.add_argument("--json", action="store_true", help="the same figures as JSON")


def asks_for_scale(arguments: argparse.Namespace) -> bool:
    """Whether any of the options was given."""
    return any(getattr(arguments, name) for name in _NAMES)


def plan_scale(arguments: argparse.Namespace, recipe: "Recipe") -> int:
    """Print what the recipe would take; the exit code."""
    from longctx.engine.api import plan_at
    from longctx.report.scale import scale_json, scale_view

    if arguments.cores:
        raise RecipeError(
            "--cores is for this machine alone",
            remedy="give --nodes and --cores-per-node in its place",
        )
    found = plan_at(
        recipe,
        docs=arguments.docs,
        tokens_per_doc=arguments.tokens_per_doc,
        nodes=arguments.nodes or 1,
        cores_per_node=arguments.cores_per_node,
        memory_per_node=arguments.memory_per_node,
        gpus=arguments.gpus or 0,
    )
    if arguments.json:
        print(json.dumps(scale_json(found), indent=1))
    else:
        show(scale_view(found))
    return 0
