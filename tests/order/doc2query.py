"""A sequence-to-sequence model that loads like a doc2query one: tiny, with random weights."""

from pathlib import Path

_WORDS = "coral reef bread flour law court water oven judge tide salt order what is"


def save_tiny_t5(folder: Path) -> Path:
    """Write the model and a tokenizer of whole words to `folder / "tiny-t5"`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = _WORDS.split()
    vocabulary = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(2)
    config = T5Config(
        vocab_size=len(vocabulary),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
        initializer_factor=5.0,  # large weights, so that the input decides what comes out
    )
    target = folder / "tiny-t5"
    T5ForConditionalGeneration(config).save_pretrained(target)
    fast.save_pretrained(target)
    return target
