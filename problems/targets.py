"""Runs any Keras optimizer on any family."""

import keras
import numpy as np
import tensorflow as tf

from problems import draws
from problems.family import Family


def minimize(
    family: Family,
    optimizer: keras.optimizers.Optimizer,
    steps: int,
    seed: int = 0,
) -> np.ndarray:
    """Full losses before every step and after the last, [steps + 1].

    One instance is minimized. Its tensors are Keras variables, and each step
    goes through `optimizer.apply` as in any training loop. Losses are those at
    the values of the variables: `finalize_variable_values`, with which an
    optimizer may move them to another point, is called only after the last
    step.

    Args:
        family: family to draw the instance from.
        optimizer: an optimizer that is not built yet.
        steps: number of steps.
        seed: seed of the instance and of everything random in the steps.
    """
    drawn, stepping = draws.split(seed, 2)
    problem = family.instances(drawn, 1)
    variables = [
        keras.Variable(tensor[0], name=f"tensor_{t}")
        for t, tensor in enumerate(problem.start)
    ]
    optimizer.build(variables)

    def params():
        return tuple(tf.convert_to_tensor(v)[None] for v in variables)

    @tf.function
    def step(number):
        point = params()
        before = problem.full_loss(point)[0]
        batch = problem.batch(stepping, number)
        _, gradients = problem.loss_and_gradient(point, batch)
        optimizer.apply([g[0] for g in gradients], variables)
        return before

    losses = [float(step(tf.constant(n))) for n in range(steps)]
    optimizer.finalize_variable_values(variables)
    return np.array([*losses, float(problem.full_loss(params())[0])])
