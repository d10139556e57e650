"""The stages of `synth.pam_qa`: passages asked about, questions on many passages, or on none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from longctx.llm.ask import CallStage, Ok, ask
from longctx.llm.client import Client
from longctx.llm.rejects import Reject
from longctx.synth.items import Item
from longctx.synth.pamqa_calls import request_answer, request_support
from longctx.synth.pamqa_items import (
    GOLD,
    OTHERS,
    loaded,
    needs_judge,
    question_of,
    to_judge,
)
from longctx.synth.pamqa_mining import first_passage
from longctx.synth.pamqa_rows import is_answerable
from longctx.synth.prompt import Prompt
from longctx.synth.rows import Reject as RowReject
from longctx.synth.stages_work import AskWork, Groups, was_asked
from longctx.synth.tokens import token_counter

if TYPE_CHECKING:
    from longctx.synth.stages_pamqa import SynthPamQA

Found = Ok | Reject


@dataclass(frozen=True)
class QuestionWork(AskWork):
    """Work of `pam.question`: documents are asked about as they will be shown."""

    op: "SynthPamQA"

    def items(self, groups: Groups) -> list[Item]:
        counter, most = token_counter(self.setting.tokenizer), self.op.passage_tokens
        found = super().items(groups)
        return [replace(item, text=first_passage(item.text, counter, most)) for item in found]


@dataclass(frozen=True)
class ManyWork(AskWork):
    """Work of a stage that asks as many things of a question as it needs."""

    op: "SynthPamQA"

    def asked(self, item: Item) -> list[Callable[[], Prompt]]:
        """The prompts of a question."""
        raise NotImplementedError

    def said(self, item: Item, replies: Sequence[Found]) -> Found:
        """What the replies to the prompts say together."""
        raise NotImplementedError

    def answers(
        self, client: Client, stage: CallStage, items: Sequence[Item]
    ) -> tuple[list[Found], int]:
        prompts = [self.asked(item) for item in items]
        rows = [
            (f"{item.id}/{i}", make)
            for item, makers in zip(items, prompts, strict=True)
            for i, make in enumerate(makers)
        ]
        found = ask(client, stage, rows, self.setting.seed)
        replies = iter(found)
        of_items = [[next(replies) for _ in makers] for makers in prompts]
        said = [self.said(item, own) for item, own in zip(items, of_items, strict=True)]
        return said, sum(map(was_asked, found))


class SupportWork(ManyWork):
    """Work of `pam.support`: golds and negatives of questions whose answers are no extracts.

    Other questions come through with an empty reply. A question is rejected where no gold could be
    judged; a passage that could not be judged has the verdict None.
    """

    def asked(self, item: Item) -> list[Callable[[], Prompt]]:
        one = question_of(item)
        if not needs_judge(one):
            return []
        golds, others = to_judge(item, self.op.settings)
        return [
            partial(request_support, one.question, one.answers, doc.text, one.lang)
            for doc in (*golds, *others)
        ]

    def said(self, item: Item, replies: Sequence[Found]) -> Found:
        if not replies:
            return Ok({})
        golds, others = to_judge(item, self.op.settings)
        first = replies[0]
        if isinstance(first, Reject) and all(
            isinstance(reply, Reject) for reply in replies[: len(golds)]
        ):
            return first
        verdicts = [bool(r.value["supports"]) if isinstance(r, Ok) else None for r in replies]
        told = dict(zip((doc.doc_id for doc in others), verdicts[len(golds) :], strict=True))
        return Ok({GOLD: verdicts[: len(golds)], OTHERS: told})


class AnswerWork(ManyWork):
    """Work of `pam.answer`: answers in sentences for rows that have their golds.

    Rows that refuse come through with an empty reply; a question that no row can be made of is
    rejected without a call.
    """

    def asked(self, item: Item) -> list[Callable[[], Prompt]]:
        one = loaded(item)
        if isinstance(one, RowReject):
            return []
        if not is_answerable(one.id, self.op.settings, self.setting.seed):
            return []
        passages = [gold.text for gold in one.golds]
        return [partial(request_answer, one.question, passages, one.answers, one.lang)]

    def said(self, item: Item, replies: Sequence[Found]) -> Found:
        if replies:
            return replies[0]
        one = loaded(item)
        return Reject(code=one.code, detail=one.detail) if isinstance(one, RowReject) else Ok({})
