"""Makes `gptq.safetensors` and `gptq.json`: what llm-compressor makes of one layer.

Run in an environment of its own, for its requirements are not this project's:

    pip install torch==2.13.0 llmcompressor==0.14.0.1
    python make_gptq.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from compressed_tensors.quantization import QuantizationArgs
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
from safetensors.torch import save_file

HERE = Path(__file__).parent
ROWS, COLUMNS, TOKENS = 64, 128, 512
CASES = [
    (bits, group, order)
    for bits, group in ((4, 128), (4, 32), (3, 32), (2, 32))
    for order in (None, "static")
]


def scales(weight, bits, group):
    """Scale and zero point of each group from its range, 0 included; zero points from 0."""
    groups = weight.view(ROWS, -1, group)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).half().float()
    return scale, torch.round(-low / scale).clamp(0, 2**bits - 1)


def codes_and_loss(weight, hessian, bits, group, order):
    scale, zero = scales(weight, bits, group)
    arguments = QuantizationArgs(
        num_bits=bits, symmetric=False, strategy="group", group_size=group, actorder=order
    )
    middle = 2 ** (bits - 1)  # its codes are signed
    rounded, losses, failed = quantize_weight(
        weight[None].clone(),
        hessian[None].clone(),
        scale[None],
        zero[None] - middle,
        None,
        arguments,
    )
    assert not failed.any()
    codes = torch.round(rounded[0].view(ROWS, -1, group) / scale[..., None]) + zero[..., None]
    return codes.view(ROWS, COLUMNS).to(torch.uint8), float(losses[0])


def main():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(ROWS, COLUMNS, generator=generator)
    mixing = torch.randn(COLUMNS, COLUMNS, generator=generator) / COLUMNS**0.5
    x = torch.randn(TOKENS, COLUMNS, generator=generator) @ mixing
    x *= torch.logspace(-1, 1, COLUMNS)[torch.randperm(COLUMNS, generator=generator)]
    hessian = (2 * x.double().T @ x.double()).float()
    tensors, losses = {"weight": weight, "hessian": hessian}, {}
    for bits, group, order in CASES:
        name = f"{bits} bits, groups of {group}, {'activation' if order else 'given'} order"
        tensors[name], losses[name] = codes_and_loss(weight, hessian, bits, group, order)
    save_file(tensors, HERE / "gptq.safetensors")
    packages = ("llmcompressor", "compressed-tensors", "torch")
    told = {
        "made_by": Path(__file__).name,
        "versions": {package: version(package) for package in packages},
        "losses": losses,
    }
    (HERE / "gptq.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
