"""Hugging Face tokenizers on a vocabulary of ours."""

from tokenizers import Tokenizer as Library

from impls.tokenizers.interface import Tokenizer
from impls.tokenizers.peers._adopted import Adopted, one_thread, ragged


def adopted_by_hf(tokenizer: Tokenizer, *, decodes: bool = True) -> Adopted:
    """Hugging Face tokenizers on exactly this vocabulary.

    Args:
        tokenizer: What is adopted.
        decodes: The library's decoder says what ours does; else ours is used.
    """
    one_thread()
    library = Library.from_str(tokenizer.to_hf_json())
    library.encode_special_tokens = True  # special tokens in text are data
    return Adopted(
        tokenizer,
        library,
        lambda texts: ragged(
            [row.ids for row in library.encode_batch_fast(texts, add_special_tokens=False)]
        ),
        (lambda ids: library.decode(ids, skip_special_tokens=False).encode())
        if decodes
        else tokenizer.decode_bytes,
    )
