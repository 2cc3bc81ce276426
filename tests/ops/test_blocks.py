"""What is computed in blocks is the same as what is computed whole, whatever the block; and nothing as large as what was to be avoided is in the program."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import manual_vjp as mv
from manual_vjp import _rows
from manual_vjp.ops import layer_norm, rms_norm
from verify import Arg, Spec, run


@pytest.mark.parametrize("block", [3, pytest.param(7, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("name", ["layer_norm", pytest.param("rms_norm", marks=pytest.mark.nightly)])
def test_norms_in_blocks_of_rows_pass_the_verification(name, block):
    """As `verify run` does it, at sizes where the loop has several rounds and a rest."""

    def blocked_layer_norm(x, scale=None, bias=None):
        return layer_norm._compiled(x, scale, bias, (x.ndim - 1,), 1e-5, block)

    def blocked_rms_norm(x, scale=None):
        return rms_norm._compiled(x, scale, (x.ndim - 1,), 1e-6, block)

    module = {"layer_norm": layer_norm, "rms_norm": rms_norm}[name]
    args = {"x": Arg(dims="n D"), "scale": Arg(dims="D", optional=True), "bias": Arg(dims="D", optional=True)}
    if name == "rms_norm":
        del args["bias"]
    fn = blocked_layer_norm if name == "layer_norm" else blocked_rms_norm
    verdict = run(
        Spec(name=name, fn=fn, reference=module.reference, args=args, sizes={"n": (0, 20), "D": (1, 20)}, dtypes=("float32",)), cases=20
    )
    assert verdict, str(verdict)


def test_large_norms_go_through_blocks(monkeypatch):
    monkeypatch.setattr(_rows, "LARGE", 10)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1100, 3)), "float32")
    text = str(jax.make_jaxpr(jax.grad(lambda x: layer_norm._layer_norm(x, None, None, 1e-5, _rows.BLOCK).sum()))(x))
    assert "scan[" in text and f"{_rows.BLOCK},3" in text


@functools.cache
def module_text(platform: str, n: int) -> str:
    shapes = [jax.ShapeDtypeStruct((1, n, 2, 8), "float32")] * 3

    def both(q, k, v):
        return jax.vjp(lambda *a: mv.attention(*a, is_causal=True), q, k, v)[1](q)

    return export.export(jax.jit(both), platforms=[platform])(*shapes).mlir_module()


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_no_array_of_all_logits_in_any_platforms_program(platform):
    n = 1536  # three blocks
    text = module_text(platform, n)
    shapes = {tuple(map(int, found.split("x")[:-1])) for found in re.findall(r"tensor<([0-9x]+x)f32>", text)}
    assert any(shape[-2:] == (512, 512) for shape in shapes)
    assert not [shape for shape in shapes if sum(size >= n for size in shape) > 1]
    assert max(int(np.prod(shape)) for shape in shapes) <= 2 * 512 * 512 * 2


def test_attention_memory_grows_with_n_and_not_with_its_square():
    def temporary(n):
        shapes = [jax.ShapeDtypeStruct((1, n, 2, 16), "float32")] * 3
        both = jax.jit(lambda q, k, v: jax.vjp(lambda *a: mv.attention(*a, is_causal=True), q, k, v)[1](q))
        return both.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    sizes = [temporary(n) for n in (1024, 2048, 4096)]
    assert sizes[2] < 3 * sizes[1] < 9 * sizes[0]
    assert sizes[2] < 4096 * 4096 * 4 / 2  # less than half of one head's logits


def test_cross_entropy_holds_no_logits():
    shapes = [jax.ShapeDtypeStruct(s, d) for s, d in (((512, 16), "float32"), ((16, 40_000), "float32"), ((512,), "int32"))]
    both = jax.jit(jax.grad(mv.linear_cross_entropy, argnums=(0, 1))).lower(*shapes).compile()
    assert both.memory_analysis().temp_size_in_bytes < 512 * 40_000 * 4 / 2
