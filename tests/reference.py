"""A slow NumPy reference of the learned optimizer, for the tests only.

It was written from the paper (Wichrowska et al. 2017, "Learned Optimizers that
Scale and Generalize") and the design notes only, without looking at the package
it is compared with. Everything is float64, with one Python loop per element of
each tensor and one small function per equation.

Symbols: h hidden state, g gradient at phi, g_bar its average, r = sqrt(lam)
with lam the average square of g_bar, m the scaled average, rel the relative
log magnitude, eta the log step length (relative to the learning rate), d a
direction; S timescales; P, Q, G units of the Parameter, Tensor, Global RNN.
"""

import copy

import numpy as np


def log_sigmoid(x):
    """Log of sigmoid(x), accurate for large |x| of either sign."""
    return -np.logaddexp(0.0, -x)


def sigmoid(x):
    """1 / (1 + exp(-x)) without overflow."""
    return np.exp(log_sigmoid(x))


def momentum_logits(weights, h):
    """(beta_g, beta_lam) = W_b h + b_b, from the old h; in [-60, 60]."""
    beta = weights["logit_kernel"] @ h + weights["logit_bias"]
    return np.clip(beta, -60.0, 60.0)


def decay(beta, s):
    """sigmoid(beta)^(2^-s) and 1 minus it, of Eqs. 1 and 2."""
    exponent = 2.0**-s * log_sigmoid(beta)
    return np.exp(exponent), -np.expm1(exponent)


def gradient_average(g, g_bar, r, beta_g):
    """Eq. 1: g_bar = d g_bar + (1-d) g; g itself at the first g != 0."""
    new = np.zeros_like(g_bar)
    for s in range(len(new)):
        keep, take = decay(beta_g, s)
        first = r[s] == 0 and g != 0
        new[s] = g if first else keep * g_bar[s] + take * g
    return new


def root_mean_square(g, new_g_bar, r, beta_l):
    """Eq. 2: r = sqrt(d r^2 + (1-d) g_bar^2); |g| at the first g != 0.

    Squares are taken relative to the larger of r and |g_bar|.
    """
    new = np.zeros_like(r)
    for s in range(len(new)):
        keep, take = decay(beta_l, s)
        scale = max(r[s], abs(new_g_bar[s]))
        if r[s] == 0 and g != 0:
            new[s] = abs(g)
        elif scale > 0:
            old_part = keep * (r[s] / scale) ** 2
            new_part = take * (new_g_bar[s] / scale) ** 2
            new[s] = scale * np.sqrt(old_part + new_part)
    return new


def scaled_average(g_bar, r):
    """Eq. 3: m = g_bar / r at each timescale, 0 where r is 0."""
    m = np.zeros_like(g_bar)
    for s in range(len(m)):
        if r[s] > 0:
            m[s] = g_bar[s] / r[s]
    return m


def relative_log_magnitude(r):
    """Eq. 4: log lam - mean_s(log lam), 0 for an unseen element."""
    if not is_seen(r):
        return np.zeros_like(r)
    log_lam = 2.0 * np.log(r)
    return log_lam - np.mean(log_lam)


def is_seen(r):
    """Whether an element has seen a gradient: r > 0 at all timescales."""
    return bool(np.all(r > 0))


def gru(weights, name, x, h, extra):
    """A GRU, rows in the order z, k, c; `extra` is added to the bias."""
    n = len(h)
    from_x = weights[name + "/input_kernel"] @ x
    from_x = from_x + weights[name + "/bias"] + extra
    gates = sigmoid(from_x[: 2 * n] + weights[name + "/gate_kernel"] @ h)
    z, k = gates[:n], gates[n:]
    recurrent = weights[name + "/candidate_kernel"] @ (k * h)
    c = np.tanh(from_x[2 * n :] + recurrent)
    return z * h + (1.0 - z) * c


def param_rnn(weights, x, h, h_tensor, h_global):
    """Eq. 10: h = GRU_P(x, h; bias A_t h_tensor + A_g h_global)."""
    extra = np.zeros(3 * len(h))
    if h_tensor is not None:
        extra = extra + weights["tensor_to_param"] @ h_tensor
    if h_global is not None:
        extra = extra + weights["global_to_param"] @ h_global
    return gru(weights, "param_gru", x, h, extra)


def tensor_rnn(weights, mean_h_x, signals, h_tensor, h_global):
    """Eq. 11: GRU_Q(mean_N [h, x], h_tensor; bias B_g h_global).

    The signals (alignment, age) enter like a second input.
    """
    extra = np.zeros(3 * len(h_tensor))
    if h_global is not None:
        extra = extra + weights["global_to_tensor"] @ h_global
    if len(signals):
        extra = extra + weights["signal_kernel"] @ signals
    return gru(weights, "tensor_gru", mean_h_x, h_tensor, extra)


def alignment(g, old_g_bar, r, moving):
    """cos_s, asinh(cos_s sqrt(N)) / 2, log sqrt(sum a_s^2 / sum w^2).

    w = g / r_0 and a_s = old g_bar_s / r_0, at most 100 in size, over the N
    elements that have a gradient; zeros while there is no average.
    """
    cosines, values, ratios = [], [], []
    for s in range(len(r)):
        both = gradient = average = 0.0
        for i in np.flatnonzero(moving):
            w = np.clip(g[i] / r[0, i], -100.0, 100.0)
            a = np.clip(old_g_bar[s, i] / r[0, i], -100.0, 100.0)
            both, gradient, average = (
                both + w * a, gradient + w * w, average + a * a,
            )  # fmt: skip
        if gradient == 0 or average == 0:
            cosine = ratio = 0.0
        else:
            cosine = both / np.sqrt(gradient * average)
            ratio = np.clip(np.log(average / gradient) / 2, -10.0, 10.0)
        cosines.append(cosine)
        values.append(np.arcsinh(cosine * np.sqrt(np.sum(moving))) / 2)
        ratios.append(ratio)
    return np.array(cosines + values + ratios)


def age(steps):
    """1 / (1 + n / tau) after the n steps that a tensor has taken."""
    return np.array([1 / (1 + steps / tau) for tau in (10, 100, 1000)])


def global_rnn(weights, new_h_tensors, h_global):
    """Eq. 12: GRU_G(mean_T h_tensor, h_global)."""
    mean = np.mean(new_h_tensors, axis=0)
    return gru(weights, "global_gru", mean, h_global, 0.0)


def directions(weights, new_h, m, shortcut):
    """Eq. 13 without bias, and A.1: d = W_d h + U_d m (d_theta, d_phi)."""
    d = weights["direction_kernel"] @ new_h
    if shortcut:
        d = d + weights["shortcut_kernel"] @ m
    return d


def bounded(eta_bar, mean_eta_bar):
    """Average log step lengths no further than 5 from their mean."""
    away = eta_bar - mean_eta_bar
    return mean_eta_bar + np.sign(away) * np.minimum(np.abs(away), 5.0)


def log_step(weights, new_h, eta_bar, h_tensor):
    """Eqs. 13 and 7: eta = eta_bar + w_e h + b_e (+ w_T h_tensor)."""
    delta_eta = weights["step_kernel"] @ new_h + weights["step_bias"]
    if "tensor_step_kernel" in weights:
        delta_eta = delta_eta + weights["tensor_step_kernel"] @ h_tensor
    return eta_bar + delta_eta[0]


def log_step_average(weights, eta_bar, eta):
    """Eq. 8: eta_bar = gamma eta_bar + (1-gamma) eta."""
    gamma = sigmoid(weights["step_momentum"][0])
    return gamma * eta_bar + (1.0 - gamma) * eta


def scaled_step(lr, eta, d, moving):
    """Eqs. 5 and 6: lr exp(eta) d / rms(d), over elements with gradients."""
    if not moving.any():
        return np.zeros_like(d)
    rms = np.sqrt(np.sum(d[moving] ** 2) / np.sum(moving))
    if rms == 0:
        return np.zeros_like(d)
    return lr * np.exp(eta) * (d / rms)


def fallback_step(g, g_bar, r, log_length, lr):
    """RMSProp-like: - lr exp(log_length) d / rms(d), d = g_bar[0] / r[-1].

    Averages as in Eqs. 1 and 2, with decays 0.9 and 0.96 at scale 0 (their
    logits rounded to 2.2 and 3.2). Returns the step, g_bar and r.
    """
    g_bar, r = g_bar.copy(), r.copy()
    d, seen = np.zeros(g.size), np.zeros(g.size, bool)
    for i in range(g.size):
        old_r = r[:, i].copy()
        g_bar[:, i] = gradient_average(g[i], g_bar[:, i], old_r, 2.2)
        r[:, i] = root_mean_square(g[i], g_bar[:, i], old_r, 3.2)
        seen[i] = is_seen(r[:, i])
        if seen[i]:
            d[i] = g_bar[0, i] / r[-1, i]
    return -scaled_step(lr, log_length, d, seen), g_bar, r


def clip_norm(g, limit):
    """Keras's clipnorm: g limit / max(|g|, limit)."""
    with np.errstate(all="ignore"):
        return g * limit / np.maximum(np.sqrt(np.sum(g**2)), limit)


def clip_global_norm(grads, limit):
    """Keras's global_clipnorm: one factor for all; NaN if not finite."""
    with np.errstate(all="ignore"):
        norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
    if not np.isfinite(norm):
        return {t: np.full_like(g, np.nan) for t, g in grads.items()}
    factor = limit / max(norm, limit)
    return {t: g * factor for t, g in grads.items()}


class Bases:
    """The coordinates of one tensor: it is seen as P^T g Q, [m, n].

    P and Q are columns of orthogonal vectors, None on a side that is too long.
    """

    def __init__(self, shape, limit):
        best = 0
        for k in range(1, len(shape)):
            cut = int(np.prod(shape[:k])), int(np.prod(shape[k:]))
            if min(cut) > best:
                best, self.cut = min(cut), cut
        self.present = 1 < best <= limit
        self.turns, self.moments = [None, None], [None, None]
        self.since = 0
        if self.present:
            for side, d in enumerate(self.cut):
                if d <= limit:
                    self.turns[side] = np.eye(d)
                    self.moments[side] = np.zeros([d, d])

    def observe(self, g):
        """Averages the outer products of gradients of norm 1."""
        x = g.reshape(self.cut)
        norm = np.sqrt(np.sum(x**2))
        if norm == 0:
            return
        self.since += 1
        for side, outer in enumerate((x @ x.T, x.T @ x)):
            if self.moments[side] is not None:
                old = self.moments[side]
                self.moments[side] = 0.95 * old + 0.05 * outer / norm**2

    def turn(self, g_bar):
        """New vectors, and the averages [S, n] with them."""
        self.since = 0
        raw = [self.out(row) for row in g_bar]
        for side, moment in enumerate(self.moments):
            if moment is None:
                continue
            old, d = self.turns[side], len(moment)
            ridge = 1e-6 * np.trace(moment) / d * np.eye(d)
            new, _ = np.linalg.qr((moment + ridge) @ old)
            for k in range(d):
                if new[:, k] @ old[:, k] < 0:
                    new[:, k] = -new[:, k]
            self.turns[side] = new
        return np.stack([self.seen(row) for row in raw])

    def seen(self, g):
        """P^T g Q, flat."""
        x, (left, right) = g.reshape(self.cut), self.turns
        if left is not None:
            x = left.T @ x
        return (x if right is None else x @ right).reshape(-1)

    def out(self, step):
        """P s Q^T, flat."""
        x, (left, right) = step.reshape(self.cut), self.turns
        if left is not None:
            x = left @ x
        return (x if right is None else x @ right.T).reshape(-1)


MEMORY = (
    "h", "g_bar", "r", "eta_bar", "h_tensor", "h_global", "largest", "steps",
    "log_step", "population", "average", "own_steps",
)  # fmt: skip
"""The state that is frozen at a rate far below the largest so far."""


class ReferenceOptimizer:
    """The rule with the features of Keras's optimizers, in Keras's order.

    It stores theta and the offset phi - theta; what the model's variables hold
    follows from these and the flag `holds_theta`. Without `follows_rates` it is
    the rule alone, which does not respond to learning-rate schedules.
    """

    def __init__(
        self,
        config,
        weights,
        learning_rate,
        *,
        weight_decay=None,
        no_decay=(),
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        ema_momentum=None,
        ema_overwrite_frequency=None,
        accumulation_steps=None,
        constraints=None,
        follows_rates=True,
    ):
        self.config = config
        self.weights = weights
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.no_decay = no_decay
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self.ema_momentum = ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.accumulation_steps = accumulation_steps
        self.constraints = constraints or {}
        self.follows_rates = follows_rates
        self.use_tensor = config.tensor_rnn
        self.use_global = config.tensor_rnn and config.global_rnn
        self.use_eta_bar = (
            config.direction_length and config.relative_learning_rate
        )

    def build(self, thetas):
        """The initial state: phi = theta, nothing seen, eta_bar = 0."""
        weights, scales = self.weights, self.config.timescales
        self.theta = [np.array(v, np.float64) for v in thetas]
        self.offset = [np.zeros_like(v) for v in self.theta]
        sizes = [v.size for v in self.theta]
        self.h = [np.tile(weights["h_param"][:, None], n) for n in sizes]
        self.g_bar = [np.zeros([scales, n]) for n in sizes]
        self.r = [np.zeros([scales, n]) for n in sizes]
        self.eta_bar = self.h_tensor = self.h_global = self.averages = None
        if self.use_eta_bar:
            self.eta_bar = [np.zeros(n) for n in sizes]
        if self.use_tensor:
            self.h_tensor = np.tile(weights["h_tensor"][:, None], len(sizes))
        if self.use_global:
            self.h_global = weights["h_global"].copy()
        if self.ema_momentum is not None:
            self.averages = [np.zeros_like(v) for v in self.theta]
        last = max(
            (t for t, v in enumerate(self.theta) if v.ndim > 1), default=0
        )
        self.bases = [
            Bases(v.shape, 0 if t == last else self.config.eigenbasis)
            for t, v in enumerate(self.theta)
        ]
        self.largest = np.zeros(len(sizes))
        self.steps = np.zeros(len(sizes))
        self.log_step = np.zeros(len(sizes))
        self.population = np.zeros(len(sizes))
        self.average = np.zeros(len(sizes))
        self.own_steps = [np.zeros(n) for n in sizes]
        self.largest_rate = 0.0
        self.ceiling = np.zeros(len(sizes))
        self.debt = np.zeros(len(sizes))
        self.accumulators = [np.zeros_like(v) for v in self.theta]
        self.log_lengths = None  # for the steps after a failure
        self.iterations = 0
        self.skipped = 0
        self.holds_theta = False

    @property
    def variables(self):
        """What the model holds: phi, or theta after `to_theta`."""
        if self.holds_theta:
            return [v.copy() for v in self.theta]
        return [v + o for v, o in zip(self.theta, self.offset, strict=True)]

    def set_variables(self, values):
        """Overwrites the variables, as a user may; the offset is kept."""
        for t, value in enumerate(values):
            value = np.array(value, np.float64)
            if not self.holds_theta:
                value = value - self.offset[t]
            self.theta[t] = value

    def to_theta(self):
        """Puts theta into the variables, for evaluation."""
        self.holds_theta = True

    def to_phi(self):
        """Puts phi back into the variables, for training."""
        self.holds_theta = False

    def mean_log_lengths(self):
        """The mean of eta_bar over each tensor."""
        if not self.use_eta_bar:
            return [0.0] * len(self.theta)
        return [eta_bar.mean() for eta_bar in self.eta_bar]

    def roll_back(self, thetas, log_lengths):
        """Returns to these points; later steps are `fallback_step`."""
        self.log_lengths = log_lengths
        self.debt = np.zeros_like(self.debt)
        self.average = self.log_step.copy()
        for t, theta in enumerate(thetas):
            self.theta[t] = theta.copy()
            self.offset[t] = np.zeros_like(theta)
            self.h[t] = np.tile(self.weights["h_param"][:, None], theta.size)
            self.g_bar[t] = np.zeros_like(self.g_bar[t])
            self.r[t] = np.zeros_like(self.r[t])
            if self.use_eta_bar:
                self.eta_bar[t] = np.full(theta.size, log_lengths[t])
            if self.averages is not None:
                self.averages[t] = theta.copy()

    def apply(self, grads):
        """One call: gradients at phi, None for a tensor without a gradient."""
        given = {
            t: np.array(g, np.float64)
            for t, g in enumerate(grads)
            if g is not None
        }
        if not given:
            raise ValueError("No gradients provided for any variable.")
        lr = self.learning_rate
        if callable(lr):
            lr = lr(self.iterations)
        every = self.accumulation_steps or 1
        if (self.iterations + 1) % every == 0:
            means = {
                t: (self.accumulators[t] + g) / every for t, g in given.items()
            }
            self.accumulators = [np.zeros_like(v) for v in self.theta]
            self._update(self._clip(means), lr)
        else:
            for t, g in given.items():
                self.accumulators[t] = self.accumulators[t] + g
        if self.averages is not None:
            self._average(self.iterations // every)
        for t in given:
            if t in self.constraints:
                new = self.constraints[t](self.theta[t])
                self.theta[t] = np.array(new, np.float64)
        self.iterations += 1

    def _clip(self, grads):
        """Keras's three ways of clipping, of which one may be set."""
        if self.clipnorm:
            return {t: clip_norm(g, self.clipnorm) for t, g in grads.items()}
        if self.global_clipnorm:
            return clip_global_norm(grads, self.global_clipnorm)
        if self.clipvalue:
            limit = self.clipvalue
            return {t: np.clip(g, -limit, limit) for t, g in grads.items()}
        return grads

    def _average(self, updates):
        """EMA of theta over all tensors; it may overwrite the variables."""
        momentum = self.ema_momentum if updates > 0 else 0.0
        frequency = self.ema_overwrite_frequency
        for t, theta in enumerate(self.theta):
            kept = momentum * self.averages[t]
            self.averages[t] = kept + (1.0 - momentum) * theta
            if frequency and (updates + 1) % frequency == 0:
                self.theta[t] = self.averages[t].copy()

    def _update(self, grads, lr):
        """Weight decay and the rule's step; no change if any is not finite."""
        if not all(np.isfinite(g).all() for g in grads.values()):
            self.skipped += 1
            return
        if lr == 0:
            return
        raw, grads = grads, self._in_bases(grads, lr)
        if self.log_lengths is not None:
            self._update_by_fallback(raw, grads, lr)
            return
        unit = lr * self.config.length_unit
        excess = self._follow_rate(lr)
        remembered = None
        if lr < self.largest_rate / 30:
            remembered = {
                name: copy.deepcopy(getattr(self, name)) for name in MEMORY
            }
        present = {t: g.reshape(-1) != 0 for t, g in grads.items()}
        if self.config.negligible:
            grads = {t: self._what_counts(t, g) for t, g in grads.items()}
        tensors = list(grads)
        if self.config.tensor_growth:
            for t in tensors:
                early = 4000 / self.steps[t] if self.steps[t] else 0.0
                late = self.steps[t] / (self.steps[t] + 1000)
                distance = self.config.tensor_growth * (1 + early)
                distance -= self.config.tensor_decay * late
                limit = self.average[t] + self.debt[t] + distance
                excess[t] += max(self.log_step[t] - excess[t] - limit, 0.0)
        if self.config.tensor_spread:
            below = self.log_step - excess
            eta_mean = self._mean_log_step(tensors, below)
            for t in tensors:
                limit = eta_mean + self.config.tensor_spread
                excess[t] += max(below[t] - limit, 0.0)
        eta_mean = self._mean_log_step(tensors, self.log_step - excess)
        new_h_tensor = None
        if self.use_tensor:
            new_h_tensor = self.h_tensor.copy()
        moves, lengths, counts = {}, {}, {}
        for t, g in grads.items():
            theta, shape = self.theta[t], g.shape
            if self.weight_decay is not None and t not in self.no_decay:
                theta = theta * (1.0 - self.weight_decay * lr)
            old_g_bar = self.g_bar[t]
            own_unit = unit * self._share(shape) * np.exp(-self.debt[t])
            step = self._step_tensor(
                t, g.reshape(-1), eta_mean, own_unit, excess[t], present[t]
            )
            delta_theta, delta_phi, x, new_r, moving, lengths[t] = step
            moves[t] = theta, delta_theta, delta_phi
            counts[t] = moving.sum()
            own = moving if self.config.lazy else np.ones_like(moving)
            if not own.any():
                continue
            if self.use_tensor:
                signals = []
                if self.config.alignment:
                    flat = g.reshape(-1)
                    signals.append(alignment(flat, old_g_bar, new_r, moving))
                if self.config.age:
                    signals.append(age(self.steps[t]))
                mean = [self.h[t][:, own].mean(1), x[:, own].mean(1)]
                new_h_tensor[:, t] = tensor_rnn(
                    self.weights,
                    np.concatenate(mean),
                    np.concatenate(signals) if signals else (),
                    self.h_tensor[:, t],
                    self.h_global,
                )
            self.steps[t] += moving.any()
            self.population[t] = own.sum()
            if self.use_eta_bar:
                self.log_step[t] = self.eta_bar[t][own].mean()
                if self.config.tensor_growth:
                    weight = min(2 / max(self.steps[t], 1), 1)
                    change = self.log_step[t] - self.debt[t] - self.average[t]
                    self.average[t] += weight * change
        shorter = self._excess_of_steps(lengths, counts)
        for t, (theta, delta_theta, delta_phi) in moves.items():
            factor, shape = np.exp(-shorter[t]), theta.shape
            step = self._in_the_model(t, raw[t], delta_theta)
            self.theta[t] = theta + factor * step.reshape(shape)
            offset = (delta_phi - delta_theta).reshape(shape)
            self.offset[t] = factor * offset
        self.h_tensor = new_h_tensor
        if self.use_global:
            active = [self.h_tensor[:, t] for t in grads]
            self.h_global = global_rnn(self.weights, active, self.h_global)
        if remembered is not None:
            vars(self).update(remembered)
        self.holds_theta = False

    def _in_bases(self, grads, lr):
        """The gradients as they are seen; new bases after ten of one, unless
        steps are short and grow."""
        largest = max(lr, 0.9999 * self.largest_rate)
        frozen = lr < largest / 30
        own = [t for t in grads if self.bases[t].present]
        if not frozen:
            for t in own:
                self.bases[t].observe(grads[t])
            length = lr * np.exp(self.log_step - self.debt)
            growth = self.log_step - self.debt - self.average
            waits = (
                self.config.basis_length
                and own
                and np.mean(growth[own]) > 0.2
                and np.mean(np.log(length[own]))
                < np.log(self.config.basis_length)
            )
            if not waits and any(self.bases[t].since >= 10 for t in own):
                for t in own:
                    self.g_bar[t] = self.bases[t].turn(self.g_bar[t])
        return grads | {
            t: self.bases[t].seen(grads[t]).reshape(grads[t].shape) for t in own
        }

    def _in_the_model(self, t, gradient, step):
        """A flat step; elements without a gradient do not move."""
        if not self.bases[t].present:
            return step
        step = self.bases[t].out(step)
        return np.where(gradient.reshape(-1) == 0, 0.0, step)

    def _excess_of_steps(self, lengths, counts):
        """By how much log steps of tensors are too far above their mean."""
        if not self.config.step_spread or not sum(counts.values()):
            return dict.fromkeys(lengths, 0.0)
        # A tensor that does not move has no length, and a count of 0.
        total = sum(lengths[t] * counts[t] for t in lengths if counts[t])
        limit = total / sum(counts.values()) + self.config.step_spread
        return {t: max(n - limit, 0.0) for t, n in lengths.items()}

    def _share(self, shape):
        """What shortens the steps of a tensor with many inputs."""
        inputs = np.prod(shape[:-1]) if len(shape) > 1 else 1
        wide = self.config.wide_inputs
        return np.sqrt(wide / inputs) if 0 < wide < inputs else 1.0

    def _follow_rate(self, lr):
        """Remembers the rate; returns by how much log lengths are too long."""
        if not self.follows_rates:
            return np.zeros_like(self.log_step)
        for t, log_step in enumerate(self.log_step):
            if 0 < self.largest_rate < lr:
                grown = max(log_step - self.debt[t], 0)
                self.debt[t] += min(np.log(lr / self.largest_rate), grown)
        self.largest_rate = max(lr, 0.9999 * self.largest_rate)
        if lr >= self.largest_rate / 2:
            self.ceiling = self.log_step.copy()
        return np.maximum(self.log_step - self.ceiling, 0)

    def _mean_log_step(self, tensors, log_step):
        """The mean of eta_bar over the elements of the last steps."""
        population = self.population[tensors]
        if not population.any():
            return 0.0
        return np.sum(population * log_step[tensors]) / population.sum()

    def _what_counts(self, t, g):
        """g, but 0 where it is far below the largest mean |g| of its tensor."""
        size = np.abs(g)
        self.largest[t] = max(size.mean(), 0.9999 * self.largest[t])
        return np.where(size < self.config.negligible * self.largest[t], 0, g)

    def _update_by_fallback(self, raw, grads, lr):
        unit = lr * self.config.length_unit
        for t, g in grads.items():
            theta = self.theta[t]
            if self.weight_decay is not None and t not in self.no_decay:
                theta = theta * (1.0 - self.weight_decay * lr)
            step, self.g_bar[t], self.r[t] = fallback_step(
                g.reshape(-1),
                self.g_bar[t],
                self.r[t],
                self.log_lengths[t],
                unit * self._share(g.shape),
            )
            step = self._in_the_model(t, raw[t], step)
            self.theta[t] = theta + step.reshape(g.shape)
            self.offset[t] = np.zeros_like(theta)
        self.holds_theta = False

    def _features(self, m, r, eta_rel):
        """x = [m, rel, eta_rel], only the parts that are switched on."""
        x = [m]
        if self.config.relative_log_magnitudes:
            x.append(relative_log_magnitude(r))
        if self.use_eta_bar:
            x.append([eta_rel])
        return np.concatenate(x)

    def _step_tensor(self, t, g, eta_mean, lr, excess, present):
        """The rule for tensor t.

        Returns delta_theta, delta_phi, x, the new r, which elements have a
        gradient, and the log of the step's length relative to that of d.
        """
        config, weights, n = self.config, self.weights, g.size
        h_tensor = self.h_tensor[:, t] if self.use_tensor else None
        h = np.zeros_like(self.h[t])
        g_bar, r = np.zeros_like(self.g_bar[t]), np.zeros_like(self.r[t])
        eta, eta_bar, moving = np.zeros(n), np.zeros(n), np.zeros(n, bool)
        x, d = [], np.zeros([len(weights["direction_kernel"]), n])
        for i in range(n):
            old_h, old_r = self.h[t][:, i], self.r[t][:, i]
            old_eta_bar = 0.0
            if self.use_eta_bar:
                old_eta_bar = self.eta_bar[t][i] - excess
            beta_g, beta_l = momentum_logits(weights, old_h)
            old_g_bar = self.g_bar[t][:, i]
            g_bar[:, i] = gradient_average(g[i], old_g_bar, old_r, beta_g)
            r[:, i] = root_mean_square(g[i], g_bar[:, i], old_r, beta_l)
            moving[i] = is_seen(r[:, i]) and g[i] != 0
            m = g_bar[:, i]
            if config.dynamic_input_scaling:
                m = scaled_average(g_bar[:, i], r[:, i])
            x.append(self._features(m, r[:, i], old_eta_bar - eta_mean))
            old_eta_bar = bounded(old_eta_bar, eta_mean)
            h[:, i] = param_rnn(weights, x[i], old_h, h_tensor, self.h_global)
            if moving[i]:
                d[:, i] = directions(weights, h[:, i], m, config.shortcut)
            if config.direction_length:
                eta[i] = log_step(weights, h[:, i], old_eta_bar, h_tensor)
            if self.use_eta_bar and not moving[i]:
                eta[i] = old_eta_bar
            if self.use_eta_bar:
                eta_bar[i] = log_step_average(weights, old_eta_bar, eta[i])
        new_r = r
        if config.lazy:  # elements without a gradient stay unchanged
            h = np.where(moving, h, self.h[t])
            g_bar = np.where(moving, g_bar, self.g_bar[t])
            r = np.where(moving, r, self.r[t])
            if self.use_eta_bar:
                eta_bar = np.where(moving, eta_bar, self.eta_bar[t])
        self.h[t], self.g_bar[t], self.r[t] = h, g_bar, r
        if self.use_eta_bar:
            self.eta_bar[t] = eta_bar
        factor = np.ones(n)
        if config.catch_up:
            self.own_steps[t] = self.own_steps[t] + present
            seen = np.maximum(self.own_steps[t], 1)
            weight = (1 - self.population[t] / n) ** 4
            more = weight * np.maximum((self.steps[t] + 1) / seen - 1, 0)
            factor = 1 + np.minimum(more, config.catch_up - 1)
        if not config.direction_length:
            steps = lr * d * factor
        else:
            eta_of = [eta]
            if config.attention:  # Eq. 9: eta_phi = eta_theta + c
                eta_of.append(eta + weights["attention_offset"][0])
            pairs = zip(eta_of, d, strict=True)
            steps = [
                factor * scaled_step(lr, e, row, moving) for e, row in pairs
            ]
        length = 0.0
        if config.step_spread and moving.any():
            own = np.exp(eta) * d[0]
            length = 0.5 * np.log(np.sum(own**2) / np.sum(d[0] ** 2))
        x = np.stack(x, axis=1)
        return steps[0], steps[-1], x, new_r, moving, length
