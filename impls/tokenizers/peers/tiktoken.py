"""tiktoken running our merges: byte-level BPE in Rust with a regular-expression engine."""

from dataclasses import dataclass
from typing import Literal

import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

from harness.card import Card
from impls.tokenizers.interface import NoExport, Tokenizer, TokenizerPeer
from impls.tokenizers.peers._adopted import Adopted, ragged

CARD = Card(
    cls="TiktokenPeer",
    title="tiktoken",
    paper="https://github.com/openai/tiktoken",
    year=2022,
    summary="OpenAI's byte-level BPE.",
    packages=("tiktoken", "tiktoken_ext"),
    peer_of=("tokenizers/byte_bpe", "tokenizers/bpe_dropout", "tokenizers/superbpe"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TiktokenPeer(TokenizerPeer):
    """The GPT-2 pattern in tiktoken's own, faster spelling; `encode_ordinary` starts no thread."""

    threads: Literal[1] = 1

    def adopt(self, tokenizer: Tokenizer) -> Tokenizer:
        """Tiktoken with exactly this vocabulary.

        Raises:
            NoExport: if the tokenizer is not byte-level BPE.
        """
        ranks = tokenizer.to_tiktoken()
        expression = getattr(tokenizer, "expression", None)
        if expression is None:
            raise NoExport(f"{type(tokenizer).__name__} has no pattern that tiktoken could run")
        gpt2 = getattr(tokenizer.recipe, "pattern", "") == "gpt2" and "\\p{L}+|" in expression
        encoding = tiktoken.Encoding(
            "llmatrix",
            pat_str=r50k_pat_str if gpt2 else expression,
            mergeable_ranks=ranks,
            special_tokens=dict(tokenizer.special_tokens),
        )
        return Adopted(
            tokenizer,
            encoding,
            lambda texts: ragged([encoding.encode_ordinary(text) for text in texts]),
            encoding.decode_bytes,
        )
