"""Makes hqq.safetensors and hqq.json: what the hqq package makes of a weight, in its own venv.

pip install hqq==0.2.8, then python make_hqq.py, in this folder
"""

import json
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from hqq.core.optimize import optimize_weights_proximal, optimize_weights_proximal_v2
from hqq.core.quantize import Quantizer
from safetensors.torch import save_file

HERE = Path(__file__).parent
GROUP = 64
# By default beta is so small beside such weights that all errors are let go; not so in the others.
# The package's first loop stops as the error grows and leaves beta as it is, the second multiplies.
OPTIONS = {
    "default": {"lp_norm": 0.7, "beta": 10.0, "kappa": 1.0, "iters": 20},
    "steep": {"lp_norm": 0.5, "beta": 1e5, "kappa": 1.0, "iters": 20},
    "growing": {"lp_norm": 0.5, "beta": 5e4, "kappa": 2.0, "iters": 3},
}
CASES = [(name, bits) for name in OPTIONS for bits in (2, 3, 4, 8)]


def loop(options: dict) -> Callable:
    if options["kappa"] == 1.0:
        return partial(optimize_weights_proximal, opt_params=options)
    fixed = {"tol": 0.0, "early_stop": False, "scale_gridsearch": False}
    return partial(optimize_weights_proximal_v2, opt_params={**options, **fixed})


def main() -> None:
    weight = 0.02 * torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
    weight[2, 5], weight[7, 100] = 0.3, -0.25  # two outliers
    tensors = {"weight": weight}
    for name, bits in CASES:
        Quantizer.optimize_weights = loop(OPTIONS[name])
        codes, told = Quantizer.quantize(
            weight, nbits=bits, group_size=GROUP, axis=1, bitpack=False, device="cpu"
        )
        tensors[f"codes_{name}_{bits}"] = codes.view(16, 128).to(torch.uint8)
        tensors[f"scale_{name}_{bits}"] = told["scale"].view(16, 2)
        tensors[f"zero_{name}_{bits}"] = told["zero"].view(16, 2)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, HERE / "hqq.safetensors"
    )
    versions = {name: version(name) for name in ("hqq", "torch")}
    told = {"made_by": "make_hqq.py", "versions": versions, "group": GROUP}
    told |= {"options": OPTIONS, "cases": CASES}
    (HERE / "hqq.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
