"""`HierarchicalRNN`: the rule as an ordinary Keras optimizer.

With attention the variables of the model hold the attended point phi while it
trains; a slot holds the offset phi - theta. Weight decay, averaging and
constraints act on theta.
"""

import threading
import warnings

import keras
from keras import ops

from hrnn_opt import backend, persistence
from hrnn_opt.model import guard_warnings, replicas, tables, user_line
from hrnn_opt.model.attended import Attended
from hrnn_opt.model.guard import RollbackGuard
from hrnn_opt.model.model_update import Target, update_model
from hrnn_opt.model.slots import STATE_DTYPES, Slots
from hrnn_opt.weights_resolver import resolve, why_not_loadable

LEARNING_RATE = 0.003
"""Chosen on the practice suite: with 0.01 a deep tanh network dies before the
rule has found its step length, whereas a step that is too short grows fast."""


@keras.saving.register_keras_serializable(package="hrnn_opt")
class HierarchicalRNN(Attended, keras.optimizers.Optimizer):
    """A learned optimizer: a hierarchical RNN that reads gradients only.

    Implements Wichrowska et al., "Learned Optimizers that Scale and
    Generalize" (2017), sections 3.1-3.3. It needs neither the loss nor the
    number of steps, and adapts the step length of every parameter itself.

    The default weights have no attention. With attention (3.2.1;
    weights="paper") gradients are taken at phi, ahead of the parameters theta,
    so the model's variables hold phi during training. Add
    `hrnn_opt.callbacks.AttentionSwap()` to `fit`, first in the list, to
    validate and save at theta; in your own loop use `with
    optimizer.at_theta():`. After `fit` the variables hold theta.

    A step in which any gradient is NaN or infinite is skipped as a whole and
    counted in `skipped_steps`. An element whose gradient is zero keeps its
    value, and its state unless its matrix is seen in an eigenbasis (see
    `RuleConfig.eigenbasis`). In a large embedding on TensorFlow only the rows
    in the minibatch are touched, also by weight decay (see
    `hrnn_opt.model.tables`).

    A schedule multiplies the step lengths that the rule finds. At a learning
    rate of 0 neither parameters nor state change, and a later positive rate
    resumes. Step lengths must not grow unnoticed while the rate is tiny: below
    a thirtieth of the largest rate so far the state is frozen, below half of it
    mean lengths do not grow, and a rate above all earlier ones lengthens steps
    only as far as the first step at that rate would have been (see
    `hrnn_opt.model.rates`). A constant rate is not affected.

    Args:
        learning_rate: the *initial* step length of section 3.2.4: a float, a
            `LearningRateSchedule` or a callable. The first step of a tensor has
            a root mean square of about learning_rate (with the default weights
            less in tensors with many inputs, see `RuleConfig.wide_inputs`);
            from there on the rule adapts the length.
        weights: meta-parameters: "pretrained" or "paper" (in the package), None
            (fresh random ones: for meta-training), or the path of a weights
            file.
        config: a `RuleConfig`; a weights file brings its own, which this must
            then equal.
        seed: seed of the fresh meta-parameters, only used with `weights=None`;
            None draws one, which `get_config` then reports.
        guard: whether to go back to the last good point, and continue with
            RMSProp-like steps, when the learned rule fails (see
            `hrnn_opt.model.guard`). Add `hrnn_opt.callbacks.Guard()` to `fit`,
            or call `watch` in your own loop, to have the loss watched.
        state_dtype: dtype of the parameters' state: "float32", or "bfloat16",
            which halves its size. Computations are in float32, and their
            results are rounded at random, repeatably (see
            `hrnn_opt.model.rounding`).
        name: name of the optimizer.
        **kwargs: every base argument of `keras.optimizers.Optimizer`:
            `weight_decay`, `clipnorm`, `clipvalue`, `global_clipnorm`,
            `use_ema`, `ema_momentum`, `ema_overwrite_frequency`,
            `loss_scale_factor`, `gradient_accumulation_steps`.

    Raises:
        ValueError: an argument is invalid, or the weights file is damaged or of
            another rule version.
        FileNotFoundError: there is no such weights file.

    Example:
        ```python
        model.compile(optimizer=HierarchicalRNN(), loss="mse")
        model.fit(x, y, validation_data=(xv, yv))
        ```
    """

    _slots = None

    def __init__(
        self,
        learning_rate=LEARNING_RATE,
        weights="pretrained",
        config=None,
        seed=None,
        guard=False,
        state_dtype="float32",
        name="hierarchical_rnn",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.weights_name = weights
        self.config, self._initial_vector, self.weights_sha256, self.seed = (
            resolve(weights, config, seed)
        )
        if not isinstance(guard, bool):
            raise ValueError(
                "Argument `guard` must be True or False. "
                f"Received: guard={guard!r}"
            )
        if state_dtype not in STATE_DTYPES:
            raise ValueError(
                f"Argument `state_dtype` must be one of {STATE_DTYPES}. "
                f"Received: state_dtype={state_dtype!r}"
            )
        self.state_dtype = state_dtype
        self.guard, self.guarded_by_callback = guard, False
        self._told_of_guard, self._told_rollbacks = False, 0
        self._missing_weights = None
        self.swapped_by_callback = False
        self._warned_of_swap = False
        # Ids of a table's rows in the step that a thread is making.
        self._touched = threading.local()
        self._skips_reported = 0

    def build(self, variables):
        """Creates the state for a list of model variables."""
        if self.built:
            return
        variables = list(variables)
        replicas.check_strategy(self, variables)
        with backend.outside():
            super().build(variables)
            self._slots = Slots(
                self.config,
                self._initial_vector,
                variables,
                self.add_variable,
                self.guard,
                self.state_dtype,
                tables.allowed(self),
            )

    @property
    def variables(self):
        """The state, without the meta-parameters.

        They are saved with it, but must not be lost when a user sets all of an
        optimizer's variables to zero to start anew.
        """
        kept = super().variables
        if self._slots is None:
            return kept
        return [v for v in kept if v is not self._slots.meta_vector]

    @property
    def meta_parameters(self):
        """The variable with the flat meta-parameters; None before `build`."""
        return self._slots.meta_vector if self.built else None

    def reset(self):
        """Forgets everything about a model, as before the first step.

        For the next fold of a cross-validation, for example. The model's
        variables stay as they are (with attention they hold theta afterwards),
        and so does the learning rate. Training continues as with a new
        optimizer.
        """
        if not self.built:
            return
        self.swap_to_theta()
        self._slots.reset()
        averages = self._averages if self.use_ema else []
        sums = (
            self._accumulated_gradients
            if self.gradient_accumulation_steps
            else []
        )
        for variable in (self._iterations, *averages, *sums):
            if variable is not None:
                variable.assign(ops.zeros_like(variable))
        self._skips_reported = self._told_rollbacks = 0

    @property
    def skipped_steps(self) -> int:
        """Steps skipped because a gradient was NaN or infinite."""
        return int(backend.read(self._slots.skipped)) if self.built else 0

    @property
    def rollbacks(self) -> int:
        """Number of times the guard went back; after the first, steps are those
        of `hrnn_opt.rule.fallback`."""
        guarded = self.built and self.guard
        return int(backend.read(self._slots.guard.rollbacks)) if guarded else 0

    @property
    def first_rollback_at(self) -> int | None:
        """Iterations made when the learned rule failed; None if it has not."""
        if not self.rollbacks:
            return None
        return int(backend.read(self._slots.guard.first_rollback_at))

    def watch(self, loss, steps=1):
        """Tells the guard the loss; for your own loop, after `apply`.

        Args:
            loss: a scalar, or the mean loss of several steps.
            steps: number of these steps.

        Raises:
            ValueError: there is no guard, or the optimizer is not built.
        """
        if not self.guard or not self.built:
            raise ValueError(
                "`watch` needs guard=True and an optimizer that is built: call "
                f"it after `apply`. Received: guard={self.guard}, "
                f"built={self.built}"
            )
        self.guarded_by_callback = True
        RollbackGuard(self).watch(loss, steps)
        if backend.executing_eagerly():
            guard_warnings.warn_of_rollbacks(self)

    # One step.

    @backend.untouched
    def apply(self, grads, trainable_variables=None):
        """As in Keras; constraints act on theta.

        Slices of a sparse gradient that belong to the same row are added first:
        clipped or scaled one by one, repeated rows would count wrongly.
        """
        if self._missing_weights is not None:
            raise self._missing_weights
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            if not self.built:
                # With `caller`, as in Keras: the paths are those of `build`.
                with keras.name_scope(self.name, caller=self):
                    self.build(trainable_variables)
        if user_line.evaluates():
            self._warn_of_missing_swap()
        guard_warnings.warn_of_missing(self)
        grads = self._with_unique_rows(grads, trainable_variables)
        super().apply(grads, trainable_variables)
        for t, variable in self._constrained(grads, trainable_variables):
            variable.assign(self._shifted(variable, t, 1))
        if backend.executing_eagerly():
            self._warn_of_skips()
            guard_warnings.warn_of_rollbacks(self)

    def _with_unique_rows(self, grads, variables):
        """Dense gradients; of tables, unique rows, whose ids are kept."""
        self._touched.rows = {}
        dense = []
        variables = variables or self._trainable_variables
        for k, gradient in enumerate(grads):
            if backend.is_sparse(gradient):
                t = self._trainable_variables_indices.get(
                    self._var_key(variables[k])
                )
                if t is not None and t in self._slots.tables:
                    gradient, *rows = backend.unique_rows(gradient)
                    self._touched.rows[t] = rows
            dense.append(backend.densify(gradient))
        return dense

    def _backend_apply_gradients(self, grads, trainable_variables):
        """As in Keras, which applies constraints next: theta must be there."""
        grads = replicas.sum_gradients(self, grads)
        super()._backend_apply_gradients(grads, trainable_variables)
        self._shift_averages_on_jax()
        for t, variable in self._constrained(grads, trainable_variables):
            variable.assign(self._shifted(variable, t, -1))

    def _constrained(self, grads, variables):
        """Numbers and variables of those that Keras constrains in this step."""
        if not self.config.attention:
            return []
        return [
            (self._get_variable_index(v), v)
            for v, g in zip(
                variables or self._trainable_variables, grads, strict=False
            )
            if g is not None and getattr(v, "constraint", None) is not None
        ]

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        """The one hook of Keras that sees all tensors at once."""
        dtype = self._slots.dtype
        lr = ops.cast(learning_rate, dtype)
        targets = []
        for variable, gradient in zip(trainable_variables, grads, strict=True):
            t = self._get_variable_index(variable)
            decay = ops.ones((), dtype)
            if self.weight_decay and self._use_weight_decay(variable):
                decay = decay - lr * self.weight_decay
            own = replicas.own_copy(variable)
            rows = None
            if t in self._slots.tables:
                gradient = ops.cast(gradient, dtype)
                touched = self._touched.rows.get(t)
                rows = (
                    tables.all_rows(gradient)
                    if touched is None
                    else tables.some_rows(gradient, *touched)
                )
            targets.append(Target(t, own, gradient, decay, rows))
        # A tensor without elements has nothing to learn from.
        targets = [t for t in targets if self._slots.sizes[t.number]]
        moving = {t.number for t in targets}
        idle = {
            t: replicas.own_copy(variable)
            for t, variable in enumerate(self._trainable_variables)
            if t not in moving
        }
        if targets:
            step = backend.read(self._iterations)
            frozen = {
                t
                for t, variable in enumerate(self._trainable_variables)
                if t in idle and not getattr(variable, "trainable", True)
            }
            update_model(
                self.config, self._slots, targets, idle, lr, step, frozen
            )
        if targets and self.guard:
            RollbackGuard(self).after_step()

    def _apply_weight_decay(self, variables):
        """Does nothing: theta decays as part of the step."""

    # Moving averages are those of theta.

    def _update_model_variables_moving_average(self, trainable_variables):
        """Averages theta."""
        theta = [
            self._shifted(v, self._get_variable_index(v), -1, rounded=False)
            for v in trainable_variables
        ]
        super()._update_model_variables_moving_average(theta)

    def _overwrite_model_variables_with_average_value(
        self, trainable_variables
    ):
        """theta becomes its average; phi keeps its distance."""
        for v, average in zip(trainable_variables, self._averages, strict=True):
            own = replicas.own_copy(v)
            own.assign(ops.cast(backend.read(average), v.dtype))
            own.assign(self._shifted(own, self._get_variable_index(v), 1))

    def _shift_averages_on_jax(self):
        """Shifts to phi on JAX, where Keras does not call the hook above."""
        frequency = self.ema_overwrite_frequency
        if backend.NAME != "jax" or not (self.use_ema and frequency):
            return
        overwritten = ops.equal((self.iterations + 1) % frequency, 0)
        for t, v in enumerate(self._trainable_variables):
            phi = self._shifted(v, t, 1)
            v.assign(ops.where(overwritten, phi, backend.read(v)))

    def finalize_variable_values(self, var_list):
        """Ends `fit`: theta (or its average) stays in the variables."""
        if self.built and backend.has_value(self._slots.holds_theta):
            self.swap_to_theta()
            self._warn_of_skips()
            guard_warnings.warn_of_rollbacks(self)
        super().finalize_variable_values(var_list)
        # The next `fit` may be without the callback.
        self.swapped_by_callback = self._warned_of_swap = False

    def _warn_of_missing_swap(self):
        """Warns once a `fit` that phi is about to be validated or saved."""
        if not self.config.attention or self.swapped_by_callback:
            return
        if not self._warned_of_swap:
            self._warned_of_swap = True
            warnings.warn(
                "HierarchicalRNN trains at an attended point ahead of the "
                "parameters. To validate and save at the parameters "
                "themselves, pass callbacks=[hrnn_opt.callbacks."
                "AttentionSwap(), ...] to `fit`, or evaluate inside `with "
                "optimizer.at_theta():` in your own loop. After `fit` the "
                "model holds the parameters in any case.",
                stacklevel=user_line.stacklevel(),
            )

    def _warn_of_skips(self):
        skipped = self.skipped_steps
        if skipped and not self._skips_reported:
            warnings.warn(
                f"HierarchicalRNN skipped {skipped} step(s) because a gradient "
                "was NaN or infinite; `optimizer.skipped_steps` goes on "
                "counting.",
                stacklevel=user_line.stacklevel(),
            )
        self._skips_reported = skipped

    # Saving.

    def get_config(self):
        """The arguments, and the sha256 of the weights."""
        config = super().get_config()
        name = self.weights_name
        config.update(
            weights=name if name is None else str(name),
            config=self.config.to_dict(),
            seed=self.seed,
            guard=self.guard,
            state_dtype=self.state_dtype,
            weights_sha256=self.weights_sha256,
        )
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of `get_config`.

        A saved model holds its meta-parameters in its state, so it loads even
        where the weights file is missing or has changed; without such a state
        the first step raises the error.
        """
        config = dict(config)
        sha256 = config.pop("weights_sha256", None)
        name, missing = config.get("weights"), None
        if None not in (name, sha256):
            missing = why_not_loadable(name, sha256)
        if missing is not None:
            config.update(weights=None, seed=0)
        optimizer = super().from_config(config, custom_objects)
        if missing is not None:
            optimizer.weights_name, optimizer.weights_sha256 = name, sha256
            optimizer.seed = None
            optimizer._missing_weights = missing
        return optimizer

    def save_own_variables(self, store):
        """Saves the state, with the versions it belongs to."""
        if not self.holds_theta:
            self._warn_of_missing_swap()
        persistence.write_variables(store, self._variables, self._slots)
        persistence.write_header(
            store, self.config, self.guard, self.state_dtype
        )

    def load_own_variables(self, store):
        """Loads the state; refuses one of another version or config by name.

        With the state of an optimizer without guard, the guard starts anew.
        """
        guarded, variables = persistence.is_guarded(store), self._variables
        if guarded and not self.guard:
            raise ValueError(
                f"The saved state of optimizer '{self.name}' is that of "
                "guard=True, and may have gone on with other steps. "
                f"Received: guard={self.guard}"
            )
        starts = self.guard and not guarded and self.built
        if starts:
            variables = variables[: -len(self._slots.guard.variables)]
        if persistence.check(
            store,
            self.name,
            self.config,
            variables,
            self._slots,
            self.state_dtype,
        ):
            persistence.read_variables(store, variables, self._slots)
            self._missing_weights = None
            if starts:
                for variable in self._slots.guard.variables:
                    variable.assign(ops.zeros_like(variable))
