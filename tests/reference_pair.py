"""The Keras optimizer and the reference, step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN, RuleConfig, weights
from hrnn_opt.rule import meta_parameters
from tests.reference import ReferenceOptimizer

SHAPES = {"scale": (), "bias": (3,), "kernel": (4, 3), "filters": (2, 1, 2, 2)}
SCALE, BIAS, KERNEL, FILTERS = range(4)


NUMBERS = {
    "tensor_spread": 0.002,
    "tensor_growth": 1e-5,
    "tensor_decay": 0.2,
    "catch_up": 3.0,
    "step_spread": 0.002,
    "wide_inputs": 3.0,
}
"""Numbers of a `RuleConfig` that act within a few steps."""


def weights_file(folder, seed=0, **config):
    """Meta-parameters with noise, so that none is zero."""
    config = RuleConfig(**config)
    vector = meta_parameters.initial_vector(config, seed)
    noise = np.random.default_rng(seed).normal(0, 0.2, vector.shape)
    path = folder / f"noisy{seed}.npz"
    weights.save(path, config, vector + noise)
    return path


def new_variables(dtype="float64"):
    rng = np.random.default_rng(1)
    return [
        keras.Variable(rng.normal(size=shape), dtype=dtype, name=name)
        for name, shape in SHAPES.items()
    ]


def draw_gradients(steps, seed=2):
    """For each step, a list of arrays of sizes two decades apart."""
    rng = np.random.default_rng(seed)
    return [
        [
            10 ** rng.uniform(-1, 1) * rng.normal(size=shape)
            for shape in SHAPES.values()
        ]
        for _ in range(steps)
    ]


class ReferencePair:
    """The optimizer and the reference, given the same gradients."""

    def __init__(
        self,
        path,
        learning_rate=0.125,
        reference=None,
        mode="eager",
        variables=None,
        **kwargs,
    ):
        self.variables = variables or new_variables()
        self.optimizer = HierarchicalRNN(learning_rate, weights=path, **kwargs)
        self.optimizer.swapped_by_callback = True
        arrays = {k: v.astype(float) for k, v in np.load(path).items()
                  if k != "metadata"}  # fmt: skip
        config = weights.load(path).config
        if not isinstance(learning_rate, float):
            learning_rate = 0.125
        self.reference = ReferenceOptimizer(
            config, arrays, learning_rate, **(reference or {})
        )
        self.reference.build([v.numpy() for v in self.variables])
        self.mode, self._graphs = mode, {}

    def step(self, gradients):
        """One step of both; a missing gradient is None."""
        self.reference.apply(gradients)
        self.step_optimizer(gradients)

    def step_optimizer(self, gradients):
        if not self.optimizer.built:
            self.optimizer.build(self.variables)
        given = tuple(g is not None for g in gradients)
        if given not in self._graphs:
            self._graphs[given] = self._graph(given)
        self._graphs[given](
            *(
                tf.constant(g, v.dtype)
                for g, v in zip(gradients, self.variables, strict=True)
                if g is not None
            )
        )

    def _graph(self, given):
        def apply(*gradients):
            gradients = iter(gradients)
            gradients = [next(gradients) if here else None for here in given]
            pairs = zip(gradients, self.variables, strict=True)
            self.optimizer.apply_gradients(pairs)

        if self.mode == "eager":
            return apply
        return tf.function(
            apply, jit_compile=self.mode == "jit", autograph=False
        )

    def check(self, rtol=1e-9):
        """Compares the variables and the whole state."""
        reference, slots = self.reference, self.optimizer._slots

        def same(name, got, wanted):
            np.testing.assert_allclose(
                got.numpy(),
                wanted,
                rtol,
                rtol * 1e-2,
                err_msg=name,
            )

        pairs = zip(self.variables, reference.variables, strict=True)
        for t, (variable, wanted) in enumerate(pairs):
            same(variable.name, variable, wanted)
            if self.optimizer.config.attention:
                same("offset", slots.offset(t), reference.offset[t])
            packed = [reference.h[t], reference.g_bar[t], reference.r[t]]
            if reference.config.catch_up:
                packed.append(reference.own_steps[t][None])
            if reference.eta_bar is not None:
                packed.append(reference.eta_bar[t][None])
            state = tf.concat([s.value for s in slots.states[t]], axis=-1)
            same("state", state, np.concatenate(packed))
            if reference.averages is not None:
                average = self.optimizer._model_variables_moving_average[t]
                same("average", average, reference.averages[t])
        same("h_tensor", slots.shared.h_tensor, reference.h_tensor)
        same("h_global", slots.shared.h_global[:, 0], reference.h_global)
        assert self.optimizer.skipped_steps == reference.skipped
        assert int(self.optimizer._iterations) == reference.iterations
        if self.optimizer.config.attention:
            assert self.optimizer.holds_theta == reference.holds_theta

    def run(self, all_gradients):
        for gradients in all_gradients:
            self.step(gradients)
            self.check()

    def fail(self, gradients):
        """Twelve steps, a loss that makes the guard go back, and its point.

        With an interval of 4 that is the point after four steps.
        """
        for k in range(8):
            self.run(gradients[k : k + 1])
            self.optimizer.watch(1.0)
            if k == 3:
                good = [theta.copy() for theta in self.reference.theta]
                lengths = self.reference.mean_log_lengths()
        self.run(gradients[8:12])
        with pytest.warns(UserWarning, match="the guard went back"):
            self.optimizer.watch(np.nan)
        self.reference.roll_back(good, lengths)
        self.check()
