"""The optimizer's updates for given gradients, on the backend that runs.

Keras fixes the backend at import, so `tests/test_backends.py` runs this, and
`tests/backend_models.py`, in a separate process for each backend, and
compares the arrays. Nothing here imports TensorFlow.
"""

import contextlib

import keras
import numpy as np

from hrnn_opt import HierarchicalRNN
from hrnn_opt.model import chunks

BACKEND = keras.backend.backend()
STEPS, BAD = 20, 9  # one gradient of step BAD is not finite
RATE = 0.125
SEED = 3  # seed of weights with which every tensor moves
BASES_SEED = 8  # the same of weights with eigenbases

SHAPES = {
    "scale": (),
    "one": (1,),
    "bias": (3,),
    "kernel": (7, 5),
    "filters": (2, 1, 3, 2),
    "table": (11, 4),
}
# Parameters of a piece, where a tensor is to have two: the usual number once.
PIECES = {"float32": chunks.PIECE, "float64": 2048}
LARGE = {
    dtype: {"large": (2, piece // 2 + 617), "bias": (5,), "small": (40, 3)}
    for dtype, piece in PIECES.items()
}

AVERAGING = {
    "use_ema": True,
    "ema_momentum": 0.75,
    "ema_overwrite_frequency": 3,
}
FEATURES = {
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.25},
    "global_clipnorm": {"global_clipnorm": 2.0},
    "loss_scale": {"loss_scale_factor": 4.0},
    "averages": {"use_ema": True, "ema_momentum": 0.75},
    "overwritten": AVERAGING,
    "accumulation": {"gradient_accumulation_steps": 3},
    "constraints": {},
    "all": AVERAGING
    | {
        "global_clipnorm": 2.0,
        "weight_decay": 0.5,
        "gradient_accumulation_steps": 2,
    },
}
# Features whose code on JAX depends on values, which `jax.jit` only traces.
TRACED = ("overwritten", "accumulation", "constraints", "all")


def modes():
    """Ways to take a step: on JAX also `stateless_apply` in `jax.jit`."""
    return ("eager", "jit") if BACKEND == "jax" else ("eager",)


def start(shapes):
    """Initial values, multiples of 1/128: exact in bfloat16."""
    rng = np.random.default_rng(1)
    return [rng.integers(-128, 128, shape) / 128 for shape in shapes.values()]


def gradients(shapes, steps=STEPS, seed=2):
    """For each step, one array per tensor, of sizes two decades apart.

    A step sees only a few rows of a "table", and never its rows 2 and 5.
    """
    rng = np.random.default_rng(seed)
    every = []
    for _ in range(steps):
        step = [
            10 ** rng.uniform(-1, 1) * rng.normal(size=shape)
            for shape in shapes.values()
        ]
        if "table" in shapes:
            unseen = rng.uniform(size=11) < 0.5
            unseen[[2, 5]] = True
            step[list(shapes).index("table")][unseen] = 0
        every.append(step)
    return every


def with_a_bad_step(every):
    """The same gradients, with a NaN at step number `BAD`."""
    every[BAD][-1].flat[-1] = np.nan
    return every


class Stepper:
    """Variables, and the optimizer that updates them."""

    def __init__(self, weights, shapes, dtype, mode, **kwargs):
        self.variables = [
            keras.Variable(value, dtype=dtype, name=name)
            for name, value in zip(shapes, start(shapes), strict=True)
        ]
        self.optimizer = HierarchicalRNN(RATE, weights=weights, **kwargs)
        self.optimizer.swapped_by_callback = True
        self.optimizer.build(self.variables)
        self._apply = (
            self._compiled() if mode == "jit" else self.optimizer.apply
        )

    def _compiled(self):
        import jax

        step = jax.jit(self.optimizer.stateless_apply)
        state = self.optimizer.variables

        def apply(grads):
            new, new_state = step(
                [v.value for v in state],
                grads,
                [v.value for v in self.variables],
            )
            for variable, value in zip(
                [*self.variables, *state], [*new, *new_state], strict=True
            ):
                variable.assign(value)

        return apply

    def step(self, gradients):
        """Takes one step."""
        self._apply(
            [
                keras.ops.convert_to_tensor(g, dtype=v.dtype)
                for g, v in zip(gradients, self.variables, strict=True)
            ]
        )

    def theta(self):
        """theta of each tensor, whether the variables hold phi or theta."""
        slots, held = self.optimizer._slots, not self.optimizer.holds_theta
        return [
            numpy(v).astype("float64") - held * numpy(slots.offset(t))
            for t, v in enumerate(self.variables)
        ]


def numpy(tensor):
    """The tensor as a NumPy array."""
    return keras.ops.convert_to_numpy(tensor)


def by_tensor(thetas):
    """The results of all steps, one array per tensor: {name: [steps, ...]}."""
    return {
        name: np.stack([step[t] for step in thetas])
        for t, name in enumerate(SHAPES)
    }


def trajectory(weights, dtype, mode, **arguments):
    """20 steps on tensors of odd shapes: theta after each step.

    With weight decay, one bad step, and one step after which the variables
    hold theta.
    """
    stepper = Stepper(
        weights, SHAPES, dtype, mode, weight_decay=0.5, **arguments
    )
    thetas = []
    for k, grads in enumerate(with_a_bad_step(gradients(SHAPES))):
        if k == 12:
            stepper.optimizer.swap_to_theta()
        stepper.step(grads)
        thetas.append(stepper.theta())
    return by_tensor(thetas) | {"skipped": stepper.optimizer.skipped_steps}


def with_bases(weights, dtype, mode):
    """`trajectory` and `large`, with gradients in their eigenbases.

    In float32 the latter differs by what it is rounded to: the two rows of the
    large tensor have moments so alike that their basis is nearly arbitrary.
    """
    bases = weights.with_name(f"noisy{BASES_SEED}.npz")
    results = {f"bases {dtype} {mode}": trajectory(bases, dtype, mode)}
    if dtype == "float64":
        results[f"large bases {mode}"] = large(bases, dtype, mode)
    return results


@contextlib.contextmanager
def pieces_of(size):
    """Cuts tensors into smaller pieces than usual."""
    before, chunks.PIECE = chunks.PIECE, size
    chunks._pack.cache_clear()
    try:
        yield
    finally:
        chunks.PIECE = before
        chunks._pack.cache_clear()


def large(weights, dtype, mode):
    """20 steps with a tensor of two pieces: theta at the end."""
    shapes = LARGE[dtype]
    with pieces_of(PIECES[dtype]):
        stepper = Stepper(weights, shapes, dtype, mode, weight_decay=0.5)
        for grads in with_a_bad_step(gradients(shapes)):
            stepper.step(grads)
    arrays = dict(zip(shapes, stepper.theta(), strict=True))
    return arrays | {"skipped": stepper.optimizer.skipped_steps}


def feature(weights, name, mode):
    """8 steps with a feature of Keras's optimizers: theta and the averages."""
    stepper = Stepper(weights, SHAPES, "float64", mode, **FEATURES[name])
    if name == "constraints":
        for variable in stepper.variables:
            variable.constraint = keras.constraints.NonNeg()
    scale = FEATURES[name].get("loss_scale_factor", 1)
    for grads in gradients(SHAPES, 8):
        stepper.step([scale * g for g in grads])
    arrays = dict(zip(SHAPES, stepper.theta(), strict=True))
    if stepper.optimizer.use_ema:
        for shape, average in zip(
            SHAPES,
            stepper.optimizer._model_variables_moving_average,
            strict=True,
        ):
            arrays[f"average {shape}"] = numpy(average)
    # At the end of `fit` the variables hold theta, or its average.
    stepper.optimizer.finalize_variable_values(stepper.variables)
    for shape, variable in zip(SHAPES, stepper.variables, strict=True):
        arrays[f"final {shape}"] = numpy(variable)
    return arrays


def many_pieces(weights, mode):
    """8 steps in so many pieces that one program is mapped over them."""
    with pieces_of(16):
        stepper = Stepper(weights, SHAPES, "float64", mode)
        for grads in gradients(SHAPES, 8):
            stepper.step(grads)
        return dict(zip(SHAPES, stepper.theta(), strict=True))


def run(weights):
    """All cases, {case: {name: array}}; float64 last, as JAX must enable it."""
    results = {}
    for mode in modes():
        for dtype in ("float32", "bfloat16"):
            results[f"{dtype} {mode}"] = trajectory(weights, dtype, mode)
        results[f"state in bfloat16 {mode}"] = trajectory(
            weights, "float32", mode, state_dtype="bfloat16"
        )
        results[f"large float32 {mode}"] = large(weights, "float32", mode)
        results |= with_bases(weights, "float32", mode)
    enable_float64()
    for mode in modes():
        results[f"float64 {mode}"] = trajectory(weights, "float64", mode)
        results[f"large float64 {mode}"] = large(weights, "float64", mode)
        results |= with_bases(weights, "float64", mode)
        results[f"many pieces {mode}"] = many_pieces(weights, mode)
        for name in FEATURES if mode == "eager" else TRACED:
            results[f"{name} {mode}"] = feature(weights, name, mode)
    return results


def enable_float64():
    """Enables float64 in JAX, which otherwise rounds to float32."""
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
