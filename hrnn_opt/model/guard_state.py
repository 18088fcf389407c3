"""What the guard remembers: counts, losses, two points (see `guard`)."""

import math

from keras import ops

from hrnn_opt import backend


class GuardState:
    """Variables, created in a fixed order after all others.

    Args:
        variables: variables of the model.
        add: function of name, shape, value and dtype, which makes a variable.
    """

    def __init__(self, variables, add):
        def count(name):
            return add(f"guard_{name}", (), dtype="int32")

        def number(name, shape=()):
            return add(f"guard_{name}", shape)

        tensors = (len(variables),)
        self.rollbacks = count("rollbacks")
        self.first_rollback_at = count("first_rollback_at")  # in iterations
        self.points = count("points")  # points kept so far
        self.since = count("since")  # steps since the last point
        self.bad = count("bad")  # steps skipped in a row
        self.intervals = count("intervals")  # intervals whose loss was seen
        self.first_loss = number("first_loss")
        self.lowest_loss = number("lowest_loss")
        self.loss_total = number("loss_total")
        self.loss_steps = number("loss_steps")
        self.lengths = number("lengths", tensors)  # of `fallback`
        self.good_lengths = number("good_lengths", tensors)
        self.candidate_lengths = number("candidate_lengths", tensors)
        # All tensors one after another: few operations, whatever their number.
        size = (sum(math.prod(v.shape) for v in variables),)
        self.good = number("good", size)
        self.candidate = number("candidate", size)

    @property
    def variables(self) -> list:
        """All of them."""
        return list(vars(self).values())

    def just_checked(self) -> bool:
        """Whether no step was made since the last check."""
        return int(backend.read(self.since)) == 0

    def choose(self, learned, instead, assigned):
        """Runs one of two functions, which assign the same variables."""
        failed = backend.read(self.rollbacks) > 0
        backend.run_if(failed, instead, assigned)
        backend.run_if(ops.logical_not(failed), learned, assigned)

    def count(self, finite):
        """Counts one more step, which was skipped unless `finite`."""
        self.since.assign(self.since + 1)
        skipped = ops.cast(ops.logical_not(finite), "int32")
        self.bad.assign((self.bad + 1) * skipped)
