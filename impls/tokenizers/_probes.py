"""Difficult texts: where tokenizers differ from each other, break or slow down."""

import ast
import heapq
import json
import random
import string
import textwrap
import unicodedata
from collections.abc import Callable
from functools import cache
from inspect import getsource
from pydoc_data.topics import topics
from typing import Final

LONG: Final = 1 << 20  # a text of this many characters without a space, if `size` allows it

_MULTILINGUAL: Final = (
    "Größe, naïveté, œuvre; ¿dónde está? Žluťoučký kůň. İstanbul'da ılık ǅungla. "
    "Быстрая коричневая лиса. Ελληνικά, Ὀδυσσεύς. שלום עולם. مرحبا بالعالم ١٢٣. "
    "नमस्ते दुनिया १२३. สวัสดีชาวโลก ๑๒๓. 你好，世界。日本語のテキスト、カタカナ。안녕하세요 세계. "
    "Ⅻ ½ x² №5 ﬁne ſt 'ſ it'S WE'LL'd\u0301 e\u0301a\u0308\u0323 "
)
_EMOJI: Final = "😀👍🏽👩‍👩‍👧‍👦🏳️‍🌈🇩🇪🇯🇵❤️‍🔥1️⃣ 🫠 text🙂text ☃︎☃️ \u200d\u200b\ufeff\u2060 "
_SPACES: Final = " \t\n\r\n\v\f\x85\xa0\u1680\u2003\u2028\u2029\u3000"


def corpus(seed: int) -> list[str]:
    """About 200 kB of English and Python, to train small tokenizers on; ASCII but for a few."""
    names = sorted(topics)
    random.Random(seed).shuffle(names)
    english = [topics[name] for name in names[:20]]
    return [text[:8000] for text in english] + [
        getsource(module)[:20_000] for module in (ast, heapq, json, string, textwrap)
    ]


def texts(seed: int, size: int) -> list[str]:
    """About `size` characters of difficult texts, the same for the same arguments.

    From size 2**20 on, a text of 2**20 characters without a space is added.
    """
    rng = random.Random(seed)
    kinds: tuple[Callable[[random.Random, int], str], ...] = (
        _english,
        _code,
        _multilingual,
        _emoji,
        _mixed,
        _controls,
        _whitespace,
        _digits,
        _random_unicode,
        _latin_bytes,
        _replaced_bytes,
        _runs,
        _no_space,
        _contractions,
    )
    share = max(1, size // (4 * len(kinds)))
    found = ["", " ", "\n", "a", "\0", "\ufffd", "  a", "a  ", " \n a", "a\r\n\r\n  b"]
    found += [kind(rng, rng.randint(1, 2 * share)) for kind in kinds for _ in range(4)]
    if size >= LONG:
        found.append(_no_space(rng, LONG))
    return found


@cache
def _assigned() -> str:
    """Every character this Python knows; newer ones differ between libraries by their age."""
    points = map(chr, range(0x110000))
    return "".join(c for c in points if unicodedata.category(c) not in {"Cn", "Cs"})


def _english(rng: random.Random, n: int) -> str:
    text = topics[rng.choice(sorted(topics))]
    start = rng.randrange(len(text))
    return text[start : start + n]


def _code(rng: random.Random, n: int) -> str:
    text = getsource(rng.choice((ast, heapq, json, textwrap)))
    start = rng.randrange(len(text))
    return text[start : start + n]


def _multilingual(rng: random.Random, n: int) -> str:
    start = rng.randrange(len(_MULTILINGUAL))
    return (_MULTILINGUAL * (n // len(_MULTILINGUAL) + 2))[start : start + n]


def _emoji(rng: random.Random, n: int) -> str:
    start = rng.randrange(len(_EMOJI))
    return (_EMOJI * (n // len(_EMOJI) + 2))[start : start + n]


def _mixed(rng: random.Random, n: int) -> str:
    alphabet = _MULTILINGUAL + _EMOJI + _SPACES + "aZ09 ''.,/-_"
    return "".join(rng.choices(alphabet, k=n))


def _controls(rng: random.Random, n: int) -> str:
    return "".join(
        chr(rng.choice((rng.randrange(32), 127 + rng.randrange(34), 97))) for _ in range(n)
    )


def _whitespace(rng: random.Random, n: int) -> str:
    return "".join(rng.choices(_SPACES + "   \n\nab", k=n))


def _digits(rng: random.Random, n: int) -> str:
    return "".join(rng.choices("0123456789.,- ١²", k=n))


def _random_unicode(rng: random.Random, n: int) -> str:
    return "".join(rng.choices(_assigned(), k=n))


def _latin_bytes(rng: random.Random, n: int) -> str:
    return rng.randbytes(n).decode("latin-1")


def _replaced_bytes(rng: random.Random, n: int) -> str:
    text = rng.randbytes(n).decode("utf-8", errors="replace")
    return "".join(c if unicodedata.category(c) != "Cn" else "\ufffd" for c in text)


def _runs(rng: random.Random, n: int) -> str:
    text = ""
    while len(text) < n:
        text += rng.choice(("a", " ", "\n", "=", "-", "0", "é", "ab", "😀")) * rng.randint(1, 300)
    return text[:n]


def _no_space(rng: random.Random, n: int) -> str:
    return "".join(rng.choices(string.ascii_lowercase + "etaoin" * 4, k=n))


def _contractions(rng: random.Random, n: int) -> str:
    pieces = ("'s", "'S", "'ll", "'Ll", "'re", "'VE", "'d", "'ſ", "don", "I", " ", "We", "''", "É")
    return "".join(rng.choices(pieces, k=n))[:n]
