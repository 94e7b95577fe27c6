"""How fast does a decoder of a size by name train here?

    python benchmarks/training_speed.py [SIZE ...]

Prints tokens per second in float32 and in bfloat16 autocast, in rounds that take turns; the median
of the rounds. Uses as many threads as torch chooses (OMP_NUM_THREADS changes that).
"""

import sys
from statistics import median

import numpy as np
import torch

from harness import catalogue
from impls.models.decoder import Decoder, sized
from impls.models.training import Training, has_bf16

ROUNDS, STEPS = 5, 6


def main() -> None:
    """Print one line for each size and precision."""
    text = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8)
    native = has_bf16(torch.device("cpu"))
    print(f"{torch.get_num_threads()} threads, bfloat16 instructions: {'yes' if native else 'no'}")
    for size in sys.argv[1:] or ["1m"]:
        model = Decoder(sized(size), encoding=catalogue.load("positions/rope")())
        recipes = {name: Training(steps=STEPS, autocast=name) for name in ("off", "bf16")}
        rates = {name: [] for name in recipes}
        for _ in range(ROUNDS + 1):  # the first one warms up
            for name, recipe in recipes.items():
                rates[name].append(recipe.run(model, text).tokens_per_s)
        for name, rate in rates.items():
            told = f"{median(rate[1:]):10,.0f} tokens/s"
            print(f"{size:>6}  {model.n_parameters:>12,} parameters  autocast {name:<5}{told}")


if __name__ == "__main__":
    main()
