"""Where the time of an update goes: each part of the rule, compiled alone."""

import statistics
import time

import keras
import numpy as np
from keras import ops

from hrnn_opt import HierarchicalRNN, backend
from hrnn_opt.model import kernels
from hrnn_opt.model.chunks import PIECE
from hrnn_opt.rule import features, readout, step_length
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.numerics import linear
from hrnn_opt.rule.products import (
    Products,
    from_vector,
    with_one_product,
)
from training.benchmark.steps import finished
from training.common.tables import table


class Piece:
    """One piece of a tensor, with drawn state, and functions of its parts.

    Args:
        config: the features in use; those of the default weights.
        vector: flat meta-parameters.
        size: number of parameters.
    """

    def __init__(self, config: RuleConfig, vector, size: int):
        self.config, self.vector = config, ops.convert_to_tensor(vector)
        rng = np.random.default_rng(0)

        def draw(rows, scale=1.0):
            values = scale * rng.standard_normal((rows, 1, size), "float32")
            return ops.convert_to_tensor(values)

        units, scales = config.param_units, config.timescales
        self.g = draw(1, 1e-3)
        self.h, self.g_bar = draw(units, 0.3), draw(scales, 1e-3)
        self.r, self.eta = ops.abs(draw(scales, 1e-3)), draw(1)
        self.x, self.logits = draw(config.inputs), draw(2)
        self.gates, self.candidate = draw(2 * units), draw(units)
        self.packed = ops.abs(
            ops.reshape(draw(config.state_rows, 1e-3), (-1, size))
        )
        self.totals = draw(units + config.inputs + 4)
        self.zero, self.no = ops.zeros(()), ops.zeros((), "bool")
        self.one_row = ops.zeros((1, 1))
        self.bias = ops.zeros((3 * units + bool(config.tensor_step), 1))

    def parts(self) -> dict:
        """Name to a function of (meta-parameters, arrays), and the arrays."""
        return {
            "averages and features (Eqs. 1-4)": (
                self._features,
                (self.g, self.g_bar, self.r, self.logits),
            ),
            "products of the GRU (Eq. 10)": (self._products, (self.x, self.h)),
            "its gates and candidate": (
                self._gates,
                (self.gates, self.candidate, self.h),
            ),
            "readouts and step lengths (Eqs. 5-9, 13)": (
                self._readouts,
                (self.h, self.g_bar, self.eta),
            ),
            "packing the state": (self._pack, (self.packed,)),
            "sums over tensors": (self._sums, (self.totals,)),
            "the move": (self._move, (self.g, self.eta)),
        }

    def whole(self) -> dict:
        """`parts` for what an update calls: all parts, and the move."""
        return {"all but the move": (self._sense, (self.packed, self.g))}

    def _features(self, meta, g, g_bar, r, logits):
        scales = self.config.timescales
        first = features.first_gradient(g, r)
        decay_g = features.decays(logits[:1], scales)
        decay_lam = features.decays(logits[1:], scales)
        g_bar = features.gradient_average(g, g_bar, decay_g, first)
        r = features.root_mean_square(g, g_bar, r, decay_lam, first)
        m = features.rescale(g_bar, r)
        return g_bar, r, m, features.relative_log_magnitude(r)

    def _products(self, meta: Products, x, h):
        p = meta.param_gru
        return (
            linear(p.input_kernel, ops.concatenate([x, h], axis=0)),
            linear(p.candidate_kernel, h),
        )

    def _gates(self, meta, gates, candidate, h):
        z, k = ops.split(ops.sigmoid(gates), 2, axis=0)
        return z * h + (1 - z) * backend.tanh(candidate + k * h)

    def _readouts(self, meta: Products, h, m, eta_bar):
        logits = readout.momentum_logits(meta, h)
        d, change = readout.outputs(meta, h, m)
        eta, eta_bar = step_length.update_log_step(
            eta_bar, self.zero, change, ops.sigmoid(meta.step_momentum[0])
        )
        return logits, step_length.unscaled_step(d, eta), eta_bar

    def _pack(self, meta, packed):
        return kernels.pack(kernels.unpack(self.config, packed + 1))

    def _sums(self, meta, totals):
        return kernels.row_sums(None, totals)

    def _move(self, meta, theta, u):
        return step_length.move(theta, 0.1 * u, None)

    def _sense(self, meta, packed, g):
        del meta
        return kernels.sense_chunk(
            self.config,
            self.vector,
            self.zero,
            self.no,
            packed,
            ops.reshape(g, (-1,)),
            self.one_row if self.config.negligible else None,
            self.bias,
            self.one_row,
            ops.zeros((2, 1)) if self.config.catch_up else None,
            None,
        )


def run(seconds: float, size: int = PIECE) -> dict:
    """Times of the parts of an update of `size` parameters, in turn.

    A part alone reads its arguments from memory and writes its results there,
    as it does in the compiled whole, too, wherever a product is next.
    """
    optimizer = HierarchicalRNN()
    optimizer.build([keras.Variable(0.0)])
    piece = Piece(
        optimizer.config, backend.read(optimizer._slots.meta_vector), size
    )
    calls = {}
    for name, (function, arguments) in (piece.whole() | piece.parts()).items():
        compiled = backend.compile_function(_with_meta(piece, function))
        calls[name] = compiled, (piece.vector, *arguments)
        finished(compiled(*calls[name][1]))
    times = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end:
        for name, (compiled, arguments) in calls.items():
            start = time.perf_counter()
            finished(compiled(*arguments))
            times[name].append(time.perf_counter() - start)
    ns = {k: 1e9 * statistics.median(v) / size for k, v in times.items()}
    whole = ns["all but the move"] + ns["the move"]
    ns = {"all": whole} | {k: ns[k] for k in piece.parts()}
    print(f"\nParts of an update of {size:,} parameters, each compiled alone")
    print(
        table(
            ["part", "ns/param", "share"],
            [[k, f"{v:.1f}", f"{v / whole:.0%}"] for k, v in ns.items()],
        )
    )
    return {"parts_ns_per_param": {k: round(v, 1) for k, v in ns.items()}}


def _with_meta(piece: Piece, function):
    def call(vector, *arguments):
        meta = with_one_product(from_vector(piece.config, vector))
        return function(meta, *arguments)

    return call
