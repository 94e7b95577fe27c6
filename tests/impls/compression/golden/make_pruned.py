"""Makes `pruned.safetensors` and `pruned.json`: what llm-compressor leaves of the layer of GPTQ's.

Run beside `gptq.safetensors` in an environment of its own, for its requirements are not ours:

    pip install torch==2.13.0 llmcompressor==0.14.0.1
    python make_pruned.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from llmcompressor.modifiers.pruning.sparsegpt import sgpt_sparsify
from llmcompressor.modifiers.pruning.wanda import wanda_sparsify
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent


def linear(weight):
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    return layer


def by_sparsegpt(weight, hessian, n, m, block):
    """What is left, and the loss it reports; n of m go."""
    layer = linear(weight)
    loss, left = sgpt_sparsify.sparsify_weight(
        layer,
        {layer: hessian.clone()},
        sparsity=0.5,
        prune_n=n,
        prune_m=m,
        block_size=block,
        dampening_frac=0.01,
        preserve_sparsity_mask=False,
    )
    return left, loss


def by_wanda(weight, hessian, n, m):
    layer = linear(weight)
    squares = hessian.diagonal() / 2
    return wanda_sparsify.sparsify_weight(
        layer, {layer: squares}, sparsity=0.5, prune_n=n, prune_m=m
    )


def main():
    given = load_file(HERE / "gptq.safetensors")
    weight, hessian = given["weight"], given["hessian"]
    tensors, losses = {}, {}
    for pattern, n, m, block in (("", 0, 0, 128), ("", 0, 0, 32), ("2:4", 2, 4, 128)):
        name = f"sparsegpt, pattern {pattern or 'none'}, block {block}"
        tensors[name], losses[name] = by_sparsegpt(weight, hessian, n, m, block)
    for pattern, n, m in (("none", 0, 0), ("2:4", 2, 4)):
        tensors[f"wanda, pattern {pattern}"] = by_wanda(weight, hessian, n, m)
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
        HERE / "pruned.safetensors",
    )
    packages = ("llmcompressor", "compressed-tensors", "torch")
    told = {
        "made_by": Path(__file__).name,
        "versions": {package: version(package) for package in packages},
        "losses": losses,
    }
    (HERE / "pruned.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
