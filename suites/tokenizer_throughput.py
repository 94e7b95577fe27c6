"""How fast does a tokenizer train, load, encode and decode, and what slows it down?

A peer adopts the vocabulary of the technique it repeats; ours and the peer take turns on the same
texts. Cold text meets a fresh tokenizer, each sample another text; `load_ms` is the first load and
first kilobyte, compiling included (a peer has adopted once before, to see if it can). Hostile text
is one word, or random characters; `adversarial_cost` is warm speed over that of the worse, and
`adversarial_bytes` its size, as much as fits into a second. MB are 10^6 bytes of UTF-8.
"""

from dataclasses import dataclass
from functools import partial

from harness.card import Metric, Suite
from harness.instruments import Instruments, Samples
from impls.tokenizers.interface import Tokenizer, TokenizerPeer, TokenizerRecipe
from suites._packages import package_versions
from suites._race import Race, in_turn, mb_per_s, ours_over_peer
from suites.data import corpus
from suites.data.adversarial import hostile_texts
from suites.data.vocabulary import Side, same_ids, sides

SUITE = Suite(
    title="Tokenizer throughput",
    question="How fast does it train, load, encode and decode, beside the library one would use?",
    families=("tokenizers",),
    baseline="tokenizers/byte_bpe",
    timing=True,
    metrics=(
        Metric(name="train_mb_s", unit="MB/s", better="higher", kind="timing"),
        Metric(name="load_ms", unit="ms", better="lower", kind="timing"),
        Metric(name="cold_mb_s", unit="MB/s", better="higher", kind="timing"),
        Metric(name="warm_mb_s", unit="MB/s", better="higher", kind="timing"),
        Metric(name="decode_mb_s", unit="MB/s", better="higher", kind="timing"),
        Metric(name="unbroken_mb_s", unit="MB/s", better="higher", kind="timing"),
        Metric(name="unicode_mb_s", unit="MB/s", better="higher", kind="timing"),
        Metric(name="adversarial_cost", unit="1", better="lower", kind="timing"),
        Metric(name="adversarial_bytes", unit="B", better="higher", kind="timing"),
        Metric(name="encode_peak_bytes", unit="B", better="lower", kind="memory"),
        Metric(name="ids_agree", unit="1", better="higher", kind="quality"),
        Metric(name="ours_over_peer_train", unit="1", better="higher", kind="timing"),
        Metric(name="ours_over_peer_cold", unit="1", better="higher", kind="timing"),
        Metric(name="ours_over_peer_warm", unit="1", better="higher", kind="timing"),
    ),
)

Numbers = dict[str, float | Samples | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """How much text of which kind, and how often."""

    data: str = "english"  # english, code, multilingual, file:PATH, hf:NAME
    corpus_bytes: int = 2_000_000  # half to train on, half to encode
    vocab_size: int = 8192  # of what a peer adopts; a technique has its own field of that name
    adversarial_bytes: int = 1_000_000
    rounds: int = 9
    slow_rounds: int = 3  # of training and of adversarial text
    seed: int = 0

    def __post_init__(self) -> None:
        corpus.check(self.data)
        least = {"corpus_bytes": 10_000, "adversarial_bytes": 1000, "rounds": 1, "slow_rounds": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")


def measure(
    technique: TokenizerRecipe | TokenizerPeer, setting: Setting, instruments: Instruments
) -> Numbers:
    """Load, encode cold, warm and adversarial text, decode, train; for a peer, ours beside it."""
    texts = corpus.load(
        setting.data, instruments, n_bytes=setting.corpus_bytes, seed=setting.seed, held_out=0.5
    )
    unseen, opening = texts.held_out_texts, texts.train_texts[0][:1000]
    contenders = sides(technique, texts, instruments, vocab_size=setting.vocab_size)
    race = partial(instruments.interleave, rounds=setting.rounds, seed=setting.seed)
    race_slow = partial(race, rounds=setting.slow_rounds)
    adopted = len(contenders) > 1 and contenders[0].loads
    (first,) = race(lambda: contenders[0].fresh().encode(opening), rounds=1, warmup=0)
    tokenizers = [side.fresh() for side in contenders]
    with instruments.peak_memory() as memory:
        tokenizers[0].encode_batch(unseen)
    instruments.note(
        corpus=texts.facts(),
        vocab_size=tokenizers[0].vocab_size,
        adopted=adopted,  # else it runs what it trained, and ids are its own
        packages=package_versions(instruments.technique),
    )
    parts = [unseen[n :: setting.rounds] for n in range(setting.rounds)]
    return {
        "load_ms": 1000 * first[0] if contenders[0].loads else None,
        "encode_peak_bytes": memory.growth_bytes,
        **_cold(contenders, opening, parts, race),
        **_warm(tokenizers, unseen, race, adopted),
        **_adversarial(tokenizers[0], unseen, setting, race_slow),
        **_training(contenders, texts.train_texts, race_slow),
    }


def _cold(contenders: list[Side], opening: str, parts: list[list[str]], race: Race) -> Numbers:
    works = []
    for side in contenders:
        tokenizers = [side.fresh() for _ in parts]
        for tokenizer in tokenizers:
            tokenizer.encode(opening)
        pairs = zip(tokenizers, parts, strict=True)
        works.append(in_turn(partial(tokenizer.encode_batch, part) for tokenizer, part in pairs))
    seconds = race(*works, warmup=0)
    return {
        "cold_mb_s": mb_per_s(parts, seconds[0]),
        "ours_over_peer_cold": ours_over_peer(seconds),
    }


def _warm(tokenizers: list[Tokenizer], texts: list[str], race: Race, adopted: bool) -> Numbers:
    seconds = race(*(partial(tokenizer.encode_batch, texts) for tokenizer in tokenizers))
    first, *others = (tokenizer.encode_batch(texts) for tokenizer in tokenizers)
    (decoding,) = race(partial(tokenizers[0].decode_bytes, first.ids))
    return {
        "warm_mb_s": mb_per_s([texts] * len(seconds[0]), seconds[0]),
        "decode_mb_s": mb_per_s([texts] * len(decoding), decoding),
        "ids_agree": same_ids(first, others[0]) if adopted else None,
        "ours_over_peer_warm": ours_over_peer(seconds),
    }


def _adversarial(tokenizer: Tokenizer, texts: list[str], setting: Setting, race: Race) -> Numbers:
    count = setting.slow_rounds + 1  # each sample another text, the first for the warm-up
    n_bytes, seed = setting.adversarial_bytes, setting.seed
    hostile = hostile_texts(tokenizer.encode, n_bytes=n_bytes, count=count, seed=seed)
    kinds = [[texts] * count, *([[text] for text in kind] for kind in hostile)]
    seconds = race(*(in_turn(partial(tokenizer.encode_batch, p) for p in k) for k in kinds))
    speeds = [mb_per_s(parts[1:], s) for parts, s in zip(kinds, seconds, strict=True)]
    return {
        "unbroken_mb_s": speeds[1],
        "unicode_mb_s": speeds[2],
        "adversarial_cost": [n / min(adverse) for n, *adverse in zip(*speeds, strict=True)],
        "adversarial_bytes": min(len(kind[0].encode()) for kind in hostile),
    }


def _training(contenders: list[Side], texts: list[str], race: Race) -> Numbers:
    works = [partial(side.train, texts) for side in contenders if side.train]
    if len(works) < len(contenders):
        return {"train_mb_s": None, "ours_over_peer_train": None}
    seconds = race(*works)
    speeds = mb_per_s([texts] * len(seconds[0]), seconds[0])
    return {"train_mb_s": speeds, "ours_over_peer_train": ours_over_peer(seconds)}
