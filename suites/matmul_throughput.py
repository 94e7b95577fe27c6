"""How fast is the product with a compressed layer, beside torch's own with 4, 8 and 16 bits?

A layer of one shape with random weights, as a whole: the time of its forward for some tokens at
once, one for decoding. All sides take turns on the same tokens; a sample is the mean of products
one after another, with weights that have left the caches if the layer is large. The sides of torch
read bfloat16; `dtype` is what the technique's layer reads. `bandwidth_share` is the bytes a layer
stores over its time, of the bytes a second that a sum over memory reaches in the same rounds.
"""

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.card import Metric, Suite
from harness.errors import UsageError
from harness.instruments import Instruments, Samples
from impls.compression.interface import CompressedLinear, LayerCompression, LayerStatistics
from suites._products import CALLS, GROUP, Product, torch_bf16, torch_int4, torch_int8, work
from suites._race import milliseconds, over

SUITE = Suite(
    title="Throughput of compressed layers",
    question="How fast is a compressed layer's product for few and many tokens, beside torch's?",
    families=("compression",),
    baseline="compression/rtn",
    timing=True,
    metrics=(
        Metric(name="product_ms", unit="ms", better="lower", kind="timing"),
        Metric(
            name="fastest_over_ours",
            unit="1",
            better="higher",
            kind="timing",
            summary="Time of torch's int4 or bfloat16, whichever is less, over ours.",
        ),
        Metric(name="bf16_over_ours", unit="1", better="higher", kind="timing"),
        Metric(name="int8_over_ours", unit="1", better="higher", kind="timing"),
        Metric(name="int4_over_ours", unit="1", better="higher", kind="timing"),
        Metric(
            name="bandwidth_share",
            unit="1",
            better="higher",
            kind="timing",
            summary="Stored bytes a second, of what summing memory reaches.",
        ),
        Metric(name="bits_per_parameter", unit="bit", better="lower", kind="memory"),
    ),
)
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
STREAM_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One size of a layer and of what it reads."""

    n_tokens: int = 1
    n_outputs: int = 4096
    n_inputs: int = 4096
    dtype: str = "bfloat16"
    rounds: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if min(self.n_tokens, self.rounds) < 1:
            raise ValueError(
                f"n_tokens and rounds must be at least 1, got {self.n_tokens} and {self.rounds}"
            )
        for name in ("n_outputs", "n_inputs"):
            if getattr(self, name) < GROUP or getattr(self, name) % GROUP:
                raise ValueError(
                    f"{name} must be a multiple of {GROUP}, as torch's int4 asks, "
                    f"got {getattr(self, name)}"
                )


def measure(
    technique: Any, setting: Setting, instruments: Instruments
) -> dict[str, float | Samples | None]:
    """Race the compressed layer against torch's products and a sum over memory."""
    if not isinstance(technique, LayerCompression):
        raise UsageError(
            f"{type(technique).__name__} changes a model as a whole: it has no layer to time here"
        )
    torch.manual_seed(setting.seed)
    linear = nn.Linear(setting.n_inputs, setting.n_outputs, bias=False)
    layer = compressed(technique, linear, setting)
    x = torch.randn(setting.n_tokens, setting.n_inputs).to(torch.bfloat16)
    memory = torch.from_numpy(np.ones(STREAM_BYTES // 8, dtype=np.int64))  # it is in large pages
    sides = {"int4": torch_int4, "int8": torch_int8, "bf16": torch_bf16}
    weight = linear.weight.detach()
    products, *theirs, read = instruments.interleave(
        work(partial(product, layer), x.to(DTYPES[setting.dtype])),
        *(work(partial(make, weight), x) for make in sides.values()),
        memory.sum,
        rounds=setting.rounds,
        seed=setting.seed,
    )
    ours = [s / CALLS for s in products]
    torch_s = {name: [s / CALLS for s in side] for name, side in zip(sides, theirs, strict=True)}
    stored = layer.nbytes()
    moved = stored + setting.n_tokens * (setting.n_inputs + setting.n_outputs) * x.itemsize
    instruments.needs("product_ms", bytes=moved)
    instruments.note(
        threads=torch.get_num_threads(), stored_bytes=stored,
        memory_gb_s=STREAM_BYTES / float(np.median(read)) / 1e9,
        torch_ms={name: 1e3 * float(np.median(side)) for name, side in torch_s.items()},
    )  # fmt: skip
    fastest = [min(pair) for pair in zip(torch_s["int4"], torch_s["bf16"], strict=True)]
    return {
        "product_ms": milliseconds(ours),
        "fastest_over_ours": over(fastest, ours),
        **{f"{name}_over_ours": over(side, ours) for name, side in torch_s.items()},
        "bandwidth_share": [stored / STREAM_BYTES * ratio for ratio in over(read, ours)],
        "bits_per_parameter": layer.bits_per_parameter(),
    }


def compressed(
    technique: LayerCompression, linear: nn.Linear, setting: Setting
) -> CompressedLinear:
    """The layer, calibrated on random tokens where the technique asks for any."""
    statistics = LayerStatistics()
    if technique.needs:
        statistics.add(torch.randn(256, setting.n_inputs), technique.needs)
    return technique.compress(linear, statistics).eval()


def product(layer: CompressedLinear) -> Product:
    """The forward of a copy of a layer."""
    own = copy.deepcopy(layer)

    def of(x: Tensor) -> Tensor:
        return own(x)  # type: ignore[no-any-return]

    return Product(of, layer.nbytes())
