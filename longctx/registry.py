"""The list of ops, resolved by name and imported only when a recipe uses them.

Adding an op is one line here; its class lives in the `stages` module of its room.
"""

import difflib
import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from longctx.errors import RecipeError

if TYPE_CHECKING:
    from longctx.engine.op import Op

OPS: dict[str, str] = {
    "score.heuristics": "longctx.filter.stages:ScoreHeuristics",
    "score.language": "longctx.score.stages_language:ScoreLanguage",
    "score.likelihood": "longctx.score.stages_likelihood:ScoreLikelihood",
    "score.wanjuan": "longctx.score.stages_wanjuan:ScoreWanjuan",
    "score.prolong": "longctx.score.stages_prolong:ScoreProlong",
    "score.longattn": "longctx.score.stages_longattn:ScoreLongAttn",
    "score.ladm": "longctx.score.stages_ladm:ScoreLADM",
    "select.gateau": "longctx.score.stages_gateau:SelectGateau",
    "filter.pii": "longctx.filter.stages_pii:FilterPII",
    "filter.decontaminate": "longctx.filter.stages_decontaminate:FilterDecontaminate",
    "decide": "longctx.filter.stages_decide:Decide",
    "dedup.exact": "longctx.dedup.stages:DedupExact",
    "dedup.minhash": "longctx.dedup.stages_minhash:DedupMinHash",
    "dedup.containment": "longctx.dedup.stages_containment:DedupContainment",
    "dedup.semantic": "longctx.dedup.stages_semantic:DedupSemantic",
    "mix.weights": "longctx.mixture.stages:MixWeights",
    "mix.upsample": "longctx.mixture.stages:MixUpsample",
    "embed": "longctx.embed.stages:Embed",
    "cluster.kmeans": "longctx.cluster.stages:ClusterKMeans",
    "order.random": "longctx.order.stages_baselines:OrderRandom",
    "order.source": "longctx.order.stages_baselines:OrderSource",
    "order.clusters": "longctx.order.stages_clusters:OrderClusters",
    "order.cluster_path": "longctx.order.stages_clusters:OrderClusterPath",
    "order.icp": "longctx.order.stages:OrderICP",
    "order.neighbours": "longctx.order.stages_neighbours:OrderNeighbours",
    "order.path": "longctx.order.stages:OrderPath",
    "order.splice": "longctx.order.stages_splice:OrderSplice",
    "order.quest": "longctx.order.stages_quest:OrderQuest",
    "pack": "longctx.pack.stages:Pack",
    "pack.turns": "longctx.pack.stages_turns:PackTurns",
    "synth.pam_qa": "longctx.synth.stages_pamqa:SynthPamQA",
    "synth.in2": "longctx.synth.stages_in2:SynthIN2",
    "synth.longalpaca": "longctx.synth.stages_longalpaca:SynthLongAlpaca",
    "synth.longalign": "longctx.synth.stages_longalign:SynthLongAlign",
    "synth.chatqa2": "longctx.synth.stages_chatqa2:SynthChatQA2",
    "synth.longwriter": "longctx.synth.stages_longwriter:SynthLongWriter",
    "synth.longmit": "longctx.synth.stages_longmit:SynthLongMIT",
    "prefer.longreward": "longctx.prefer.stages_longreward:PreferLongReward",
    "prefer.logo": "longctx.prefer.stages_logo:PreferLogo",
    "prefer.longdpo": "longctx.prefer.stages_longdpo:PreferLongDPO",
    "prefer.longwriter": "longctx.prefer.stages_longwriter:PreferLongWriter",
    "export": "longctx.io.stages_export:Export",
}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the nearest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def resolve(name: str) -> "type[Op]":
    """The class of an op. Raises RecipeError with the nearest name when there is none."""
    if name not in OPS:
        raise RecipeError(
            f"there is no op '{name}'{did_you_mean(name, OPS)}",
            remedy="`longctx ops` lists the ops",
        )
    module, attribute = OPS[name].split(":")
    found: type[Op] = getattr(importlib.import_module(module), attribute)
    return found
