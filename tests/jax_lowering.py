"""Lowers a whole update for CUDA; run by `tests/test_backends.py` on JAX.

Lowering needs no GPU. The same module, lowered for the CPU, too, is called.
"""

import jax
import keras
import numpy as np
from jax import export

from hrnn_opt import HierarchicalRNN

SHAPES = (300, 500), (500,), ()


def main():
    """Prints the platforms of the module."""
    variables = [keras.Variable(np.ones(s, "float32")) for s in SHAPES]
    optimizer = HierarchicalRNN(weight_decay=0.1, clipnorm=1.0, use_ema=True)
    optimizer.build(variables)
    values = [v.value for v in variables]
    arguments = (
        [v.value for v in optimizer.variables],
        [value / 2 for value in values],
        values,
    )
    update = jax.jit(optimizer.stateless_apply)
    lowered = export.export(update, platforms=("cuda", "cpu"))(*arguments)
    results = jax.tree.leaves(lowered.call(*arguments))
    wanted = jax.tree.leaves(update(*arguments))
    for result, value in zip(results, wanted, strict=True):
        np.testing.assert_allclose(result, value, 1e-6)
    assert any(np.any(a != b) for a, b in zip(results, values, strict=False))
    print(*lowered.platforms)


if __name__ == "__main__":
    main()
