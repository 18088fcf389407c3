"""Changes a few meta-parameters of a run by hand.

    python -m training.adjust --weights=runs/wide/small.npz \\
        --out=runs/wide/adjusted.npz --add=step_bias=0.15

writes a checkpoint that notes the change, so that the model card shows it; see
`training.evaluation.adjustment`.
"""

import json
import math
import pathlib

from absl import app, flags

from training.common import checkpoints
from training.evaluation.adjustment import adjust

WEIGHTS = flags.DEFINE_string(
    "weights", None, "Checkpoint of a run.", required=True
)
OUT = flags.DEFINE_string(
    "out", None, "File for the changed checkpoint.", required=True
)
ADD = flags.DEFINE_multi_string(
    "add", [], "NAME=NUMBER: add a number to a meta-parameter's elements."
)
MULTIPLY = flags.DEFINE_multi_string(
    "multiply", [], "NAME=NUMBER: multiply a meta-parameter by a number."
)
RULE = flags.DEFINE_multi_string(
    "rule",
    [],
    "NAME=NUMBER: a new number in the rule's config, such as tensor_spread.",
)


def numbers(flag: str, values) -> dict[str, float]:
    """Parses the values of a flag.

    Raises:
        app.UsageError: not NAME=NUMBER.
    """
    found = {}
    for value in values:
        name, _, number = value.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise app.UsageError(
                f"Flag --{flag} must be NAME=NUMBER with a finite number. "
                f"Received: --{flag}={value}"
            )
    return found


def main(argv):
    """Writes the checkpoint; prints what has changed as JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"No arguments are taken. Received: {argv[1:]}")
    changes = [
        numbers(flag, values)
        for flag, values in (
            ("add", ADD.value),
            ("multiply", MULTIPLY.value),
            ("rule", RULE.value),
        )
    ]
    try:
        arrays, info = adjust(*checkpoints.read(WEIGHTS.value), *changes)
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    path = pathlib.Path(OUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.write(path, arrays, info)
    print(json.dumps(info["stages"][-1]["adjusted"]))


if __name__ == "__main__":
    app.run(main)
