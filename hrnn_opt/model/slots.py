"""The optimizer's memory of a model, as Keras variables.

There is one packed slot [state_rows, n] for each piece of a tensor (see
`chunks`), with attention also the offset phi - theta [n], the state of the two
upper levels, and the bases of matrices (see `bases`). Slots and offsets may be
kept in bfloat16 (see `rounding`).
"""

import functools

import keras
import numpy as np
from keras import ops

from hrnn_opt import backend
from hrnn_opt.model import bases, chunks, kernels, rounding, tables
from hrnn_opt.model.guard_state import GuardState
from hrnn_opt.model.rates import Rates
from hrnn_opt.rule import products, step_length
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.hierarchy import SharedState
from hrnn_opt.rule.state import (
    TensorState,
    initial_param_state,
    initial_shared_state,
)

STATE_VERSION = 4
"""Changes with the number, order or shape of these variables."""


STATE_DTYPES = ("float32", "bfloat16")
"""Dtypes that the parameters' state may be kept in. float32 stands for the
dtype of the computations, which is float64 for variables of float64."""


def float_type(variables) -> str:
    """The state's dtype: float64 if that of a variable is, else float32.

    Raises:
        ValueError: a variable does not hold floats, its shape is not known, or
            JAX has no float64.
    """
    types = {}
    for variable in variables:
        if not getattr(variable.shape, "is_fully_defined", lambda: True)():
            raise ValueError(
                "HierarchicalRNN trains variables of known shapes: it keeps "
                "some numbers for each element. Received: "
                f"{variable.name} of shape {variable.shape}"
            )
        types[variable.name] = keras.backend.standardize_dtype(variable.dtype)
        if "float" not in types[variable.name]:
            raise ValueError(
                "HierarchicalRNN trains variables of floats. Received: "
                f"{variable.name} of dtype {types[variable.name]}"
            )
    dtype = "float64" if "float64" in types.values() else "float32"
    backend.check_float64(dtype)
    return dtype


def inputs(variable) -> int:
    """Number of inputs of a variable, as Keras's initializers count them.

    That is the product of all axes but the last one. 1 for a vector, and for an
    embedding, in which an output has a single row for its input.
    """
    shape = tuple(variable.shape)
    if len(shape) < 2 or tables.is_embedding(variable):
        return 1
    return int(np.prod(shape[:-1]))


def _zero(_):
    return 0


class Slots:
    """Variables, created in a fixed order.

    Args:
        config: the features in use.
        vector: flat meta-parameters; they are part of the saved state.
        variables: variables of the model.
        add_variable: the method `keras.optimizers.Optimizer.add_variable`.
        guard: whether to add a guard's variables at the end.
        state_dtype: one of `STATE_DTYPES`.
        with_tables: whether large embeddings are kept as `tables`.
    """

    def __init__(
        self,
        config: RuleConfig,
        vector,
        variables,
        add_variable,
        guard: bool = False,
        state_dtype: str = "float32",
        with_tables: bool = False,
    ):
        self.dtype = float_type(variables)
        self.rounded = state_dtype == "bfloat16"
        kept = state_dtype if self.rounded else self.dtype
        self._add_variable = add_variable
        vector = np.asarray(vector, self.dtype)
        self._config = config
        self._initial = []
        tensors = len(variables)
        # Not added like the others: `reset` leaves it as it is.
        self.meta_vector = self._create(
            "meta_parameters", vector.shape, lambda: vector
        )
        meta = products.from_vector(config, vector)
        self._start = functools.cache(lambda value: value(meta))
        self.shared = SharedState(
            self._add_shared("h_tensor", config.tensor_units, tensors)
            if config.tensor_rnn
            else None,
            self._add_shared("h_global", config.global_units, 1)
            if config.global_rnn
            else None,
        )
        # Rows of `TensorState`.
        self.tensors = self._add("tensors", (len(TensorState._fields), tensors))
        self.rates = Rates(
            self._add("rate_reference", ()),
            self._add("rate_ceiling", (1, tensors)),
            self._add("rate_debt", (1, tensors)),
        )
        self.skipped = self._add("skipped_steps", (), dtype="int32")
        self.holds_theta = self._add("holds_theta", (), dtype="int32")
        self.sizes = [int(np.prod(v.shape)) for v in variables]
        self._shapes = [tuple(v.shape) for v in variables]
        self.shares = step_length.wide_share(
            [inputs(v) for v in variables], config.wide_inputs
        )
        self.states, self.offsets = [], []
        # Widths of tables by number; a table's state is a single variable.
        self.tables = {
            t: int(v.shape[1])
            for t, v in enumerate(variables)
            if with_tables and tables.is_table(v)
        }
        for t, size in enumerate(self.sizes):
            if t in self.tables:
                self.states.append([self._add_table(t, kept)])
                self.offsets.append([])
                continue
            pieces = chunks.cut(t, size)
            self.states.append([self._add_state(p, kept) for p in pieces])
            self.offsets.append(
                [
                    self._add(f"offset_{t}_{p.number}", (p.size,), dtype=kept)
                    for p in pieces
                    if config.attention
                ]
            )
        self.bases = bases.created(config, variables, self._add)
        self.guard = GuardState(variables, self._add) if guard else None
        del self._start

    def offset(self, tensor: int):
        """phi - theta of a tensor, in its shape."""
        pieces = [backend.read(piece) for piece in self.offsets[tensor]]
        if not pieces:
            return ops.zeros(self._shapes[tensor], self.dtype)
        whole = pieces[0] if len(pieces) == 1 else ops.concatenate(pieces)
        return ops.reshape(ops.cast(whole, self.dtype), self._shapes[tensor])

    def piece(self, piece: chunks.Piece):
        """The packed state [F, n] of a piece, also of a table's."""
        state = self.states[piece.tensor]
        if piece.tensor not in self.tables:
            return backend.read(state[piece.number])
        width = self.tables[piece.tensor]
        return tables.as_piece(backend.read(state[0]), piece, width)

    def sum_of_log_steps(self, tensor: int):
        """Sum of eta_bar over the tensor; 0 if it is empty."""
        rows = [
            ops.cast(piece[-1], self.dtype) for piece in self.states[tensor]
        ]
        return sum(map(ops.sum, rows), ops.zeros((), self.dtype))

    def shares_of(self, tensors):
        """`step_length.wide_share` of some tensors [T]."""
        return ops.cast(self.shares[np.asarray(tensors)], self.dtype)

    def rounding_keys(self, step, tensors):
        """Random bits of a step on these tensors, [words, T]; None without
        rounding. The last two are for offsets."""
        if not self.rounded:
            return None
        count = rounding.words(self._config.state_rows) + 2
        return rounding.rounding_keys(step, np.asarray(tensors), count)

    def changing(self, tensors) -> list:
        """The variables that a step on these tensors assigns."""
        changing = [*self.shared, self.tensors, *self.rates, self.holds_theta]
        for t in tensors:
            changing += self.states[t] + self.offsets[t]
            if t in self.bases:
                changing += self.bases[t].variables
        return [v for v in changing if v is not None]

    def holds_theta_as_float(self):
        """1 where the model's variables hold theta, 0 for phi."""
        return ops.cast(self.holds_theta, self.dtype)

    def reset(self):
        """Resets all variables but the meta-parameters."""
        meta = products.from_vector(
            self._config, backend.read(self.meta_vector)
        )
        for variable, value in self._initial:
            start = ops.cast(value(meta), variable.dtype)
            variable.assign(ops.broadcast_to(start, variable.shape))

    def _add(self, name, shape, value=_zero, dtype=None):
        """Adds a variable; `value` is a function of the meta-parameters.

        It is called once for all variables, and broadcast to the shape.
        """
        variable = self._create(name, shape, lambda: self._start(value), dtype)
        self._initial.append((variable, value))
        return variable

    def _create(self, name, shape, value, dtype=None):
        return self._add_variable(
            shape=shape,
            dtype=dtype or self.dtype,
            # PyTorch cannot assign to a broadcast view.
            initializer=lambda shape, dtype: ops.copy(
                ops.broadcast_to(ops.cast(value(), dtype), shape)
            ),
            # Replicas assign their own copies, see `replicas`.
            aggregation="none",
            name=name,
        )

    def _add_shared(self, level, units, tensors):
        def value(meta):
            return getattr(initial_shared_state(meta, (), tensors), level)

        return self._add(level, (units, tensors), value)

    def _add_state(self, piece, dtype):
        shape = (self._config.state_rows, piece.size)
        name = f"state_{piece.tensor}_{piece.number}"
        return self._add(name, shape, self._column, dtype)

    def _column(self, meta):
        """Initial state of one parameter [F, 1]."""
        return kernels.pack(initial_param_state(self._config, meta, (1,)))

    def _add_table(self, tensor, dtype):
        width, rows = self.tables[tensor], self._config.state_rows

        def value(meta):
            row = ops.broadcast_to(self._column(meta), (rows, width))
            return ops.reshape(row, (1, rows * width))

        shape = (self._shapes[tensor][0], rows * width)
        return self._add(f"state_{tensor}_0", shape, value, dtype)
