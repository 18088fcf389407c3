"""Problems to optimise, many at once: section 4.1 of the paper as a library.

    import problems

    family = problems.get("rosenbrock")
    problem = family.instances(seed=0, count=128)
    params = problem.start                               # tuple of [128, ...]
    batch = problem.batch(seed=1, step=0)                # random in this step
    loss, gradients = problem.loss_and_gradient(params, batch)
    problem.full_loss(params)                            # [128], noise-free

`meta_training_set("paper")` gives the rows to meta-train on, `minimize` runs
any Keras optimizer on one instance, `python -m problems.gallery` draws
pictures. Needs TensorFlow only; usable with any optimizer.
"""

from problems import draws, safe
from problems.combinations import Choice, Sum
from problems.ensemble import Row, meta_training_set, set_names
from problems.family import Family, Problem, VectorFamily, drawer
from problems.minibatch import DataSet, data_set
from problems.monotone import Log1p, Monotone, Power, Scaled
from problems.registry import get, names, register
from problems.targets import minimize
from problems.transforms import (
    GradientNoise,
    Reparametrized,
    SparseGradient,
    Wrapper,
)

__all__ = [
    "Choice",
    "DataSet",
    "Family",
    "GradientNoise",
    "Log1p",
    "Monotone",
    "Power",
    "Problem",
    "Reparametrized",
    "Row",
    "Scaled",
    "SparseGradient",
    "Sum",
    "VectorFamily",
    "Wrapper",
    "data_set",
    "draws",
    "drawer",
    "get",
    "meta_training_set",
    "minimize",
    "names",
    "register",
    "safe",
    "set_names",
]
