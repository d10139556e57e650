"""Which columns of a stage are scores, what they say, and which end of them is the good one.

Only the columns that a reader looks at first are named here: they get a figure and documents to
read. All other numbers that a score stage wrote are taken by their type from the sidecar itself,
into the tables and the correlations. An op without an entry shows its first numbers.
"""

from dataclasses import dataclass
from typing import Literal

Better = Literal["high", "low", ""]


@dataclass(frozen=True)
class Column:
    """A score: what it measures in a few words, and whether high or low values are the better."""

    name: str
    meaning: str
    better: Better = ""


@dataclass(frozen=True)
class Scores:
    """The main columns of an op, and the words (classes, languages) that it gives to documents."""

    main: tuple[Column, ...]
    words: tuple[str, ...] = ()


SCORES: dict[str, Scores] = {
    "score.heuristics": Scores(
        (
            Column("n_tokens", "tokens of the document"),
            Column("h_alpha", "share of words with a letter", "high"),
            Column("h_mean_word_len", "mean length of a word in characters"),
            Column("h_dup_line_chars", "share of characters in repeated lines", "low"),
            Column("h_dup_para_chars", "share of characters in repeated paragraphs", "low"),
            Column("h_top_2", "share of characters in the most frequent pair of words", "low"),
            Column("h_dup_5", "share of characters in repeated runs of five words", "low"),
            Column("h_dup_10", "share of characters in repeated runs of ten words", "low"),
            Column("h_line_punct", "share of lines that end in punctuation", "high"),
            Column("h_short_lines", "share of lines of at most 30 characters", "low"),
        )
    ),
    "score.likelihood": Scores(
        (
            Column("lf_score", "LongFilter: information that far context adds, in nats", "high"),
            Column("dnll_mean", "mean fall of the loss by far context, in nats", "high"),
            Column("ppl_delta", "fall of the perplexity by far context", "high"),
            Column(
                "lp_key_share", "share of tokens that need far context (LongPPL's keys)", "high"
            ),
            Column("ppl_long", "perplexity with the long context"),
            Column("split_gain", "fall of the loss of one half by the other half, in nats", "high"),
            Column("zip_gain", "what a compressor gains by a large dictionary", "high"),
        )
    ),
    "score.wanjuan": Scores(
        (
            Column("lw_acc_long", "coherence: accuracy of the next token, long context", "high"),
            Column("lw_acc_diff", "coherence: accuracy that the longer context adds", "high"),
            Column(
                "lw_ppl_diff", "coherence: fall of the perplexity by the longer context", "high"
            ),
            Column("lw_pron_rate", "cohesion: share of words that are pronouns", "high"),
            Column("lw_conn_rate", "cohesion: share of words in connectives", "high"),
            Column("lw_ttr_win", "complexity: distinct tokens in windows of 1,000"),
        )
    ),
    "score.prolong": Scores(
        (
            Column("pl_lds_per_pair", "ProLong: dependency between chunks, per pair", "high"),
            Column("pl_lds", "ProLong: the same, summed over the pairs", "high"),
            Column("pl_lds_log", "ProLong with log-perplexities", "high"),
        )
    ),
    "score.longattn": Scores(
        (
            Column("la_ds", "attention to tokens at least a quarter of the window away", "high"),
            Column("la_var", "variance of that attention", "low"),
            Column("la_ds_nosink", "the same attention without the first token", "high"),
        )
    ),
    "score.ladm": Scores(
        (
            Column("ld_cds", "LADM: contextual dependency over all layers", "high"),
            Column("ld_cds_sum", "LADM: the same as a sum", "high"),
        )
    ),
    "select.gateau": Scores(
        (
            Column("ga_hmg", "loss of the short model above that of the long one, in nats", "high"),
            Column("ga_cas", "how much attention lies on segments that do not help", "high"),
            Column("ga_nll_a", "loss of the response for the short model, in nats a token"),
            Column("ga_nll_b", "loss of the response for the long model, in nats a token"),
        )
    ),
    "score.language": Scores(
        (
            Column("lang_mixed_share", "share of characters in another language", "low"),
            Column("lang_confidence", "how sure the document's language is", "high"),
        ),
        words=("lang",),
    ),
    "filter.pii": Scores((Column("pii_count", "personal data found in the document", "low"),)),
    "filter.decontaminate": Scores(
        (
            Column("decon_share", "share of the document found in evaluation sets", "low"),
            Column("decon_hits", "runs of words that evaluation sets have, too", "low"),
        )
    ),
    "decide": Scores(
        (
            Column("cut_longfilter", "LongFilter, as it was cut by", "high"),
            Column("cut_delta_ppl", "fall of the loss by far context, as it was cut by", "high"),
            Column("cut_longppl", "share of LongPPL's keys, as it was cut by", "high"),
            Column("cut_prolong", "ProLong, as it was cut by", "high"),
            Column("cut_ladm", "LADM, as it was cut by", "high"),
            Column("cut_longattn", "LongAttn: its figures as z-scores of the group", "high"),
            Column("cut_longattn_released", "LongAttn, as its released code has it", "high"),
            Column("cut_gateau", "GATEAU: its figures as one score", "high"),
            Column("lw_C", "LongWanjuan: rank of coherence in its group", "high"),
            Column("lw_H", "LongWanjuan: rank of cohesion in its group", "high"),
            Column("lw_X", "LongWanjuan: rank of complexity in its group"),
        ),
        words=("lw_class",),
    ),
    "dedup.containment": Scores(
        (
            Column("ct_any_share", "share of words that other documents hold, too", "low"),
            Column("ct_best_share", "largest share that one other document holds", "low"),
            Column("ct_self_share", "share of words that repeat the document itself", "low"),
            Column("ct_common_share", "share of words that very many documents hold", "low"),
        )
    ),
}
_FAMILIES = ("score.", "select.", "filter.")


def is_score(op: str) -> bool:
    """Whether a stage of this op has a page of scores."""
    return op in SCORES or op.startswith(_FAMILIES)


def scores_of(op: str) -> Scores:
    """The entry of an op; one that names nothing for an op without any."""
    return SCORES.get(op, Scores(()))
