"""Makes hqq.safetensors and hqq.json: what the hqq package makes of a weight, in its own venv.

pip install hqq==0.2.8, then python make_hqq.py, in this folder
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from hqq.core.quantize import Quantizer
from safetensors.torch import save_file

HERE = Path(__file__).parent
GROUP = 64
CASES = (2, 3, 4, 8)  # bits


def main() -> None:
    weight = 0.02 * torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
    weight[2, 5], weight[7, 100] = 0.3, -0.25  # two outliers
    tensors = {"weight": weight}
    for bits in CASES:
        codes, told = Quantizer.quantize(
            weight, nbits=bits, group_size=GROUP, axis=1, bitpack=False, device="cpu"
        )
        tensors[f"codes_{bits}"] = codes.view(16, 128).to(torch.uint8)
        tensors[f"scale_{bits}"] = told["scale"].view(16, 2)
        tensors[f"zero_{bits}"] = told["zero"].view(16, 2)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, HERE / "hqq.safetensors"
    )
    versions = {name: version(name) for name in ("hqq", "torch")}
    told = {"made_by": "make_hqq.py", "versions": versions, "group": GROUP, "bits": CASES}
    (HERE / "hqq.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
