"""The Triton W4A16 kernel: interpreted in a process of its own, compiled for Hopper, on a GPU.

Run as a script, under TRITON_INTERPRET=1, this file prints what the kernel gives.
"""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

ROOT = Path(__file__).parents[3]


class Case(NamedTuple):
    rows: int = 128
    columns: int = 256
    group: int = 128
    m: int = 3
    dtype: str = "float16"
    splits: int = 1
    fractional: bool = False
    bias: bool = True


CASES = {
    "one row": Case(m=1),
    "bfloat16": Case(dtype="bfloat16"),
    "group of 64": Case(group=64),
    "group of 192": Case(columns=384, group=192),
    "a group a row": Case(columns=512, group=512),
    "odd rows": Case(rows=131, m=16),
    "more rows of x than a block": Case(rows=64, m=70),
    "split columns": Case(columns=1024, splits=3),
    "more splits than units": Case(splits=9, bias=False),
    "fractional zeros": Case(fractional=True, dtype="bfloat16"),
}


def kernels():
    return import_module("impls.compression.kernels.w4a16_triton")


def given(case):
    """Codes, scales, zeros, x and bias."""
    rng = torch.Generator().manual_seed(0)
    shape = (case.rows, case.columns // case.group)
    codes = torch.randint(16, (case.rows, case.columns), generator=rng, dtype=torch.uint8)
    scales, zeros = (torch.rand(shape, generator=rng) for _ in range(2))
    scales, zeros = 0.01 * scales + 0.001, 15 * zeros
    if not case.fractional:
        scales, zeros = scales.half().float(), zeros.round()
    x = torch.randn(case.m, case.columns, generator=rng).to(getattr(torch, case.dtype))
    bias = torch.randn(case.rows, generator=rng)
    return codes, scales, zeros, x, bias if case.bias else None


def error(case, device="cpu"):
    """The largest error against float64, beside what is allowed.

    That is twice the error of a product in float32, and once more the rounding of the result, which
    the interpreter cuts to bfloat16 and does not round.
    """
    *weights, x, bias = given(case)
    prepared = kernels().prepare(*(w.to(device) for w in weights))
    moved = None if bias is None else bias.to(device)
    got = kernels().linear(x.to(device), prepared, moved, splits=case.splits).cpu()
    codes, scales, zeros = weights
    scales, zeros = (w.double().repeat_interleave(case.group, 1) for w in (scales, zeros))
    weight = scales * (codes - zeros)
    exact = x.double() @ weight.T + (0 if bias is None else bias.double())
    naive = (x.float() @ weight.float().T + (0 if bias is None else bias)).to(x.dtype)
    assert got.shape == exact.shape
    assert got.dtype == x.dtype
    rounding = torch.finfo(x.dtype).eps * exact.abs().max()
    allowed = 2 * (naive - exact).abs().max() + rounding
    return (got - exact).abs().max().item(), allowed.item()


@pytest.fixture(scope="module")
def interpreted():
    pytest.importorskip("triton")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CASES)
def test_interpreted_error_is_at_most_twice_the_naive_one(interpreted, name):
    found, allowed = interpreted[name]
    assert found <= allowed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_compiled_error_is_at_most_twice_the_naive_one(name):
    found, allowed = error(CASES[name], "cuda")
    assert found <= allowed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_filled_and_results_repeat_bit_for_bit():
    *weights, x, bias = (t.cuda() for t in given(Case(rows=1000, columns=4096, m=16)))
    prepared = kernels().prepare(*weights)
    first = kernels().linear(x, prepared, bias)
    assert all(torch.equal(kernels().linear(x, prepared, bias), first) for _ in range(5))


def executed(text, word):
    """What each output of the decoding assembler holds for one 32-bit word."""
    registers = {"$4": word}

    def value(operand):
        return int(operand, 16) if operand.startswith("0x") else registers.get(operand)

    for line in re.findall(r"^(?:lop3|shr)\S+ .*(?=;)", text, re.MULTILINE):
        operation, _, operands = line.partition(" ")
        target, *sources = operands.split(", ")
        if operation == "shr.u32":
            registers[target] = value(sources[0]) >> int(sources[1])
        else:
            assert (operation, sources[3]) == ("lop3.b32", "0xea")  # (a & b) | c
            a, b, c = map(value, sources[:3])
            registers[target] = (a & b) | c
    return [registers[f"${i}"] for i in range(4)]


@pytest.mark.parametrize(("dtype", "more"), [(torch.bfloat16, 128), (torch.float16, 1024)], ids=str)
def test_the_assembler_makes_numbers_of_codes(dtype, more):
    """Interpreted here: low and high half of output i are code i of either word, and `more`."""
    pytest.importorskip("triton")
    text = kernels().DECODE_BFLOAT if dtype == torch.bfloat16 else kernels().DECODE_HALF
    for low, high in ((0x3210, 0xFEDC), (0x7654, 0xBA98), (0xFFFF, 0x0000)):
        for i, output in enumerate(executed(text.value, low | high << 16)):
            halves = torch.tensor([output & 0xFFFF, output >> 16]).to(torch.int16).view(dtype)
            codes = [low >> 4 * i & 15, high >> 4 * i & 15]
            assert halves.tolist() == [more + code for code in codes]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_the_kernel_compiles_for_hopper_to_asynchronous_products(dtype, tmp_path, monkeypatch):
    triton = pytest.importorskip("triton")
    compiler = pytest.importorskip("triton.backends.compiler")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = kernels().product
    fixed = {"GROUP_UNITS": 2, "UNITS": 2, "STRIP": 128, "BLOCK_M": 16}
    types = {"X": f"*{dtype}", "Words": "*u16", "Scales": "*fp16", "Zeros": "*fp16"}
    types["Shares"] = "*fp32"
    names = kernel.fn.arg_names
    signature = {x: "constexpr" if x in fixed else types.get(x, "i32") for x in names}
    aligned = {
        (n,): [["tt.divisibility", 16]]
        for n, x in enumerate(names)
        if x in types or x in ("x_m", "R")
    }
    source = triton.compiler.ASTSource(
        kernel.fn, signature, {(names.index(x),): value for x, value in fixed.items()}, aligned
    )
    for config in kernel.configs:
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        options["enable_fp_fusion"] = True
        compiled = triton.compile(source, compiler.GPUTarget("cuda", 90, 32), options)
        instructions = compiled.asm["ptx"]
        # 4 quarters of 32 columns, 16 at a time, with the codes and with ones, 64 rows a group of
        # four warps.
        products = 4 * 2 * 2 * (128 // 64 // (config.num_warps // 4))
        assert instructions.count("wgmma.mma_async") == products
        # Two codes an instruction: no thread takes more than its share of the strip.
        bits = 0x4300 if dtype == "bf16" else 0x6400
        decoding = re.findall(rf"lop3\.b32 .*0x{bits:04x}{bits:04x}", instructions)
        assert len(decoding) == 128 * 128 // 2 // (32 * config.num_warps)
        assert "cp.async" in instructions
        assert compiled.metadata.shared <= 227 << 10  # bytes of shared memory of one block


def test_what_does_not_fit_is_refused():
    pytest.importorskip("triton")
    codes, ones = torch.zeros(4, 128, dtype=torch.uint8), torch.ones(4, 1)
    assert kernels().why_not(4, 128, 1) is None
    for change, message in (
        ((codes + 16, ones, ones), "below 16"),
        ((codes[:, :96], ones, ones), "multiple of 64 columns, got 96 columns in 1 groups"),
        ((codes, ones[:3], ones[:3]), r"must be \(4, G\), got \(3, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels().prepare(*change)
    prepared = kernels().prepare(codes, ones, ones)
    with pytest.raises(ValueError, match=r"bfloat16 or float16, got torch\.float32"):
        kernels().linear(torch.ones(1, 128), prepared)
    with pytest.raises(ValueError, match=r"bias must be \(4,\)"):
        kernels().linear(torch.ones(1, 128).half(), prepared, torch.ones(5))


def test_prepared_weights_are_as_small_as_they_can_be():
    """Codes at 4 bits, 16 for scale and zero where those are exact, else 32; strips of 128 rows."""
    pytest.importorskip("triton")
    for fractional, each in ((False, 2), (True, 4)):
        weights = given(Case(fractional=fractional))[:3]
        assert kernels().prepare(*weights).nbytes == 128 * 256 // 2 + 2 * each * 128 * 2


if __name__ == "__main__":
    print(json.dumps({name: error(case) for name, case in CASES.items()}))
