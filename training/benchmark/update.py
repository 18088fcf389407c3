"""Time and memory of one update, and how they grow (section 3.1.1)."""

import statistics
import time

import keras
import numpy as np

from hrnn_opt import HierarchicalRNN, RuleConfig
from hrnn_opt.cost.footprint import variable_bytes
from hrnn_opt.model.chunks import PIECE
from hrnn_opt.model.slots import STATE_DTYPES
from training.benchmark.steps import (
    BACKEND,
    MODES,
    device,
    instructions,
    new_step,
)
from training.common.memory import Peak
from training.common.tables import table


class Update:
    """An optimizer, variables of given sizes, and one compiled step.

    Args:
        optimizer: any Keras optimizer.
        variables: variables that it updates; gradients are random.
        mode: one of `steps.MODES`.
    """

    def __init__(self, optimizer, variables, mode: str):
        self.optimizer, self.variables = optimizer, variables
        rng = np.random.default_rng(0)
        grads = [
            keras.ops.convert_to_tensor(
                1e-3 * rng.standard_normal(v.shape, "float32")
            )
            for v in variables
        ]
        # The benchmark never evaluates, so the missing swap needs no warning.
        optimizer.swapped_by_callback = True
        optimizer.build(variables)
        self._step = new_step(optimizer, variables, grads, mode)

    def seconds(self) -> float:
        """Time of one step."""
        start = time.perf_counter()
        self._step()
        return time.perf_counter() - start

    def first(self) -> tuple[float, float]:
        """Time of the first step, and the MB needed during two steps."""
        with Peak() as peak:
            seconds = self.seconds()
            self.seconds()
        # JAX gives the exact number, without the compiler's share.
        if BACKEND == "jax":
            return seconds, self._step.extra_bytes() / 1e6
        return seconds, peak.megabytes

    def slot_bytes(self) -> int:
        """Bytes of all state that grows with the number of parameters."""
        shapes = {tuple(v.shape) for v in self.variables}
        return sum(
            variable_bytes(v)
            for v in self.optimizer.variables
            if tuple(v.shape) in shapes
            or v.name.startswith(("state_", "offset_"))
        )


def variables_of(sizes):
    """Variables of zeros, of these sizes."""
    return [keras.Variable(np.zeros(size, "float32")) for size in sizes]


def step_times(updates, seconds: float) -> list[list[float]]:
    """Step times, measured in turn so that noise affects all alike."""
    times = [[] for _ in updates]
    end = time.perf_counter() + seconds * len(updates)
    while time.perf_counter() < end or len(times[0]) < 5:
        for update, kept in zip(updates, times, strict=True):
            kept.append(update.seconds())
    return times


def _medians(updates, seconds: float) -> list[float]:
    """Median step times."""
    return [statistics.median(kept) for kept in step_times(updates, seconds)]


def run(params: int, seconds: float) -> dict:
    """One tensor of `params` parameters: HierarchicalRNN beside Adam."""
    rows = []
    result = {
        "backend": BACKEND,
        "device": device(),
        "instructions": instructions(),
        "params": params,
    }
    for mode in MODES:
        ours = Update(HierarchicalRNN(), variables_of([params]), mode)
        adam = Update(keras.optimizers.Adam(), variables_of([params]), mode)
        compile_s = 0.0
        if BACKEND != "jax":
            # Memory of the compiler does not belong to the update, so the same
            # programs are compiled first, on a tensor of a few pieces.
            few = variables_of([min(params, PIECE + params % PIECE)])
            compile_s = Update(HierarchicalRNN(), few, mode).seconds()
        first_s, peak_mb = ours.first()
        compile_s += first_s
        adam.seconds()
        ns, adam_ns = (
            1e9 * s / params for s in _medians([ours, adam], seconds)
        )
        rows.append(
            [mode, f"{ns:.1f}", f"{adam_ns:.1f}", f"{ns / adam_ns:.0f}",
             f"{ours.slot_bytes() / params:.1f}", f"{peak_mb:.0f}",
             f"{compile_s:.1f}"]
        )  # fmt: skip
        suffix = "" if mode == MODES[0] else f"_{mode}"
        result |= {
            f"ns_per_param{suffix}": round(ns, 2),
            f"adam_ns_per_param{suffix}": round(adam_ns, 2),
            f"ratio{suffix}": round(ns / adam_ns, 1),
            f"slot_bytes_per_param{suffix}": ours.slot_bytes() / params,
            f"peak_extra_mb{suffix}": round(peak_mb, 1),
            f"compile_s{suffix}": round(compile_s, 2),
        }
        del ours, adam
    print(f"\nOne update of {params:,} parameters in one tensor, float32")
    print(f"{BACKEND}, {result['device']}, {result['instructions']}")
    print(
        table(
            ["mode", "ns/param", "Adam ns/param", "ratio", "slot bytes/param",
             "peak extra MB", "first step s"],
            rows,
        )
    )  # fmt: skip
    return result


def states(params: int, seconds: float) -> dict:
    """The cost of the state's dtype and of the Parameter RNN's size.

    All are measured in turn; ratios are medians over neighbouring steps.
    """
    paper = RuleConfig()
    lite = RuleConfig(param_units=5, tensor_units=10, global_units=10)
    cases = [
        (name, config, dtype)
        for name, config in (("paper", paper), ("lite", lite))
        for dtype in STATE_DTYPES
    ]
    updates = []
    for _, config, dtype in cases:
        optimizer = HierarchicalRNN(
            weights=None, config=config, seed=0, state_dtype=dtype
        )
        update = Update(optimizer, variables_of([params]), MODES[0])
        update.seconds()
        updates.append(update)
    times = step_times(updates, seconds)
    rows, result = [], {}
    for (name, config, dtype), update, own in zip(
        cases, updates, times, strict=True
    ):
        ns = 1e9 * statistics.median(own) / params
        pairs = zip(own, times[0], strict=True)
        ratio = statistics.median(one / first for one, first in pairs)
        size = update.slot_bytes() / params
        rows.append(
            [f"{config.param_units}/{config.tensor_units}"
             f"/{config.global_units}", dtype, f"{size:.1f}", f"{ns:.1f}",
             f"{ratio:.2f}"]
        )  # fmt: skip
        result |= {
            f"slot_bytes_per_param_{name}_{dtype}": size,
            f"ns_per_param_{name}_{dtype}": round(ns, 2),
            f"time_to_first_{name}_{dtype}": round(ratio, 3),
        }
    print(f"\nThe state's type and size, mode {MODES[0]}")
    print(
        table(
            ["units", "state", "slot bytes/param", "ns/param", "to the first"],
            rows,
        )
    )
    return result


def print_scaling(params: int, seconds: float):
    """Time and bytes, measured and by section 3.1.1, as growth in each group.

    Time: N_P K_P^2 + N_T K_T^2 + K_G^2; memory: N_P K_P + N_T K_T + K_G.

    Args:
        params: largest number of parameters; the groups that do not vary it
            have at most 100,000.
        seconds: measuring time for each figure.
    """
    paper = RuleConfig()
    small = RuleConfig(param_units=5, tensor_units=10, global_units=10)
    large = RuleConfig(param_units=20, tensor_units=20, global_units=20)
    decades = [n for n in (1_000, 10_000, 100_000, 1_000_000) if n <= params]
    some = min(params, 100_000)
    groups = {
        "parameters": [(paper, [n]) for n in decades or [params]],
        "tensors": [
            (paper, [some // t] * t) for t in (1, 10, 100) if t <= some
        ],
        "units": [(c, [some]) for c in (small, paper, large)],
    }
    rows = []
    for name, cases in groups.items():
        first = None
        for config, sizes in cases:
            optimizer = HierarchicalRNN(weights=None, config=config, seed=0)
            update = Update(optimizer, variables_of(sizes), MODES[0])
            adam = Update(
                keras.optimizers.Adam(), variables_of(sizes), MODES[0]
            )
            update.seconds(), adam.seconds()
            step, adam_step = _medians([update, adam], seconds)
            measured = step, update.slot_bytes()
            formula = _section_311(config, sum(sizes), len(sizes))
            first = first or (measured, formula)
            rows.append(
                [name, f"{sum(sizes):,}", len(sizes),
                 f"{config.param_units}/{config.tensor_units}"
                 f"/{config.global_units}",
                 f"{1e3 * step:.2f}", f"{1e3 * adam_step:.2f}",
                 f"{measured[1]:,}",
                 f"{measured[0] / first[0][0]:.1f}",
                 f"{formula[0] / first[1][0]:.1f}",
                 f"{measured[1] / first[0][1]:.1f}",
                 f"{formula[1] / first[1][1]:.1f}"]
            )  # fmt: skip
    print("\nGrowth, relative to the first row of each group")
    print(
        table(
            ["against", "parameters", "tensors", "units", "ms", "Adam ms",
             "slot bytes",
             "time x", "3.1.1", "bytes x", "3.1.1"],
            rows,
        )
    )  # fmt: skip


def _section_311(config: RuleConfig, n_p: int, n_t: int):
    k_p, k_t, k_g = config.param_units, config.tensor_units, config.global_units
    return (
        n_p * k_p**2 + n_t * k_t**2 + k_g**2,
        n_p * (1 + k_p) + n_t * k_t + k_g,
    )


def first_step(name: str) -> dict:
    """Traces, compiles and runs the optimizer's part of a first step."""
    architecture = getattr(keras.applications, name, None)
    if architecture is None:
        raise ValueError(
            "Flag --model must name a model of keras.applications, such as "
            f"ResNet50V2. Received: --model={name}"
        )
    variables = architecture(weights=None).trainable_variables
    params = sum(int(np.prod(v.shape)) for v in variables)
    update = Update(HierarchicalRNN(), variables, MODES[0])
    first, peak_mb = update.first()
    later = statistics.median(update.seconds() for _ in range(3))
    print(f"\n{name}: {params:,} parameters in {len(variables)} tensors")
    print(
        table(
            ["first step s", "later steps s", "ns/param", "peak extra MB"],
            [[f"{first:.1f}", f"{later:.2f}", f"{1e9 * later / params:.1f}",
              f"{peak_mb:.0f}"]],
        )
    )  # fmt: skip
    return {
        "model": name,
        "model_tensors": len(variables),
        "model_first_step_s": round(first, 1),
        "model_step_s": round(later, 3),
        "model_peak_extra_mb": round(peak_mb, 1),
    }
