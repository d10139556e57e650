"""The rules of all systems as what the scripted backend takes: a function of a request each."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from longctx.llm.scripted import Rule
from longctx.llm.spec import RuleSet
from longctx.llm.types import GenRequest
from longctx.synth import rules_logo, rules_longmit, rules_longreward, rules_longwriter
from longctx.synth.rules_documents import longalign_answer, longalign_questions, longalpaca_qa
from longctx.synth.rules_evidence import (
    chatqa_qa,
    chatqa_summary,
    film_fine,
    film_integration,
    film_verify,
    pam_answer,
    pam_question,
    pam_support,
)

# A changed rule needs a new version, or replies of the old one come out of the cache.
VERSION = "synth-1"
_RULES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "longalign.questions": longalign_questions,
    "longalign.answer": longalign_answer,
    "longalpaca.qa": longalpaca_qa,
    "pam.question": pam_question,
    "pam.support": pam_support,
    "pam.answer": pam_answer,
    "film.fine": film_fine,
    "film.integration": film_integration,
    "film.verify": film_verify,
    "chatqa.summary": chatqa_summary,
    "chatqa.qa": chatqa_qa,
    "mit.extract": rules_longmit.extract,
    "mit.reference": rules_longmit.reference,
    "mit.answer": rules_longmit.answer_question,
    "mit.simplify": rules_longmit.simplify,
    "mit.merge": rules_longmit.merge,
    "mit.verify": rules_longmit.verify,
    "mit.necessity": rules_longmit.necessity,
    "lw.select": rules_longwriter.select,
    "lw.plan": rules_longwriter.plan,
    "lw.write": rules_longwriter.write,
    "lw.sample": rules_longwriter.sample,
    "lw.judge": rules_longwriter.judge,
    "longreward.question": rules_longreward.longreward_question,
    "logo.question": rules_logo.logo_question,
    "logo.answer": rules_logo.logo_answer,
    "logo.closed": rules_logo.logo_answer,
    "logo.judge": rules_logo.logo_judge,
}


def rule_set() -> RuleSet:
    """Replies by stage, in JSON where that is asked for."""
    spoken = {stage: _spoken(rule) for stage, rule in _RULES.items()}
    return RuleSet(VERSION, {**spoken, **rules_longreward.RULES})


def _spoken(rule: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Rule:
    def said(req: GenRequest) -> str:
        reply = rule(req.parts or {})
        return json.dumps(reply, ensure_ascii=False) if req.schema else str(reply["text"])

    return said
