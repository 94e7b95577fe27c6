"""The Triton kernels compile for Hopper, to tensor-core instructions; no GPU is needed for that."""

import pytest

triton = pytest.importorskip("triton")
compiler = pytest.importorskip("triton.backends.compiler")

from impls.attention.kernels import flash_triton  # noqa: E402

POINTERS = dict.fromkeys(("Q", "K", "V", "Out", "DOut", "DQ", "DK", "DV_"), "*bf16")
TYPES = POINTERS | dict.fromkeys(("Lse", "Delta"), "*fp32") | {"scale": "fp32"}
PRODUCTS = {"forward": 2, "backward_kv": 4, "backward_q": 3}  # in each loop


@pytest.mark.parametrize("name", PRODUCTS)
def test_kernels_compile_to_asynchronous_products_without_an_interpreter(
    name, tmp_path, monkeypatch
):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(flash_triton, name)
    config = kernel.configs[0]
    fixed = {
        "Keep": None, "Bounds": None, "CAUSAL": True, "HAS_KEEP": False, "RAGGED": False,
        "D": 128, "DV": 128, "BLOCK_D": 128, "BLOCK_DV": 128, **config.kwargs,
    }  # fmt: skip
    names = kernel.fn.arg_names
    signature = {x: "constexpr" if x in fixed else TYPES.get(x, "i32") for x in names}
    aligned = {
        (n,): [["tt.divisibility", 16]]
        for n, x in enumerate(names)
        if (x in TYPES and x != "scale") or x[-2:] in ("_b", "_h", "_t")
    }
    source = triton.compiler.ASTSource(
        kernel.fn, signature, {(names.index(x),): value for x, value in fixed.items()}, aligned
    )
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    options["enable_fp_fusion"] = True
    compiled = triton.compile(source, compiler.GPUTarget("cuda", 90, 32), options)
    instructions = compiled.asm["ptx"]
    assert instructions.count("wgmma.mma_async") >= 8 * PRODUCTS[name]  # 8 steps of 16 in d = 128
    assert "cp.async" in instructions
    assert compiled.metadata.shared <= 227 << 10  # bytes of shared memory of one block
