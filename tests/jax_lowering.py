"""Lowers a whole update for CUDA; run by `tests/test_backends.py` on JAX.

Lowering needs no GPU. The same module, lowered for the CPU, too, is called.
"""

import jax
import keras
import numpy as np
from jax import export

from hrnn_opt import HierarchicalRNN, RuleConfig

SHAPES = (300, 500), (500,), (), (500, 3)


BASES = {
    "weights": None,
    "config": RuleConfig(
        attention=False,
        eigenbasis=512.0,
        tensor_growth=0.05,
        basis_length=0.005,
    ),
    "seed": 0,
}


def lowered(dtype: str, tolerance: float, **arguments_of):
    """The platforms of the module, whose results are compared.

    Args:
        dtype: that of the variables.
        tolerance: largest relative difference to the update as JAX runs it.
        **arguments_of: further arguments of the optimizer.
    """
    variables = [keras.Variable(np.ones(s, dtype), dtype=dtype) for s in SHAPES]
    optimizer = HierarchicalRNN(
        weight_decay=0.1, clipnorm=1.0, use_ema=True, **arguments_of
    )
    optimizer.build(variables)
    values = [v.value for v in variables]
    assert {str(v.dtype) for v in values} == {dtype}
    rng = np.random.default_rng(1)
    arguments = (
        [v.value for v in optimizer.variables],
        [jax.numpy.asarray(rng.normal(size=s), dtype) for s in SHAPES],
        values,
    )
    update = jax.jit(optimizer.stateless_apply)
    module = export.export(update, platforms=("cuda", "cpu"))(*arguments)
    results = jax.tree.leaves(module.call(*arguments))
    wanted = jax.tree.leaves(update(*arguments))
    for result, value in zip(results, wanted, strict=True):
        np.testing.assert_allclose(result, value, tolerance)
    assert any(np.any(a != b) for a, b in zip(results, values, strict=False))
    return module.platforms


def main():
    """Prints the platforms."""
    print(*lowered("float32", 1e-6))
    # Both modules are the same computation, which rounding hides in float32.
    jax.config.update("jax_enable_x64", True)
    print(*lowered("float64", 1e-12))
    print(*lowered("float64", 1e-12, **BASES))


if __name__ == "__main__":
    main()
