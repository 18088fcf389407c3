"""Measures the first step that a run's meta-parameters take.

    python -m training.first_step --weights=runs/wide/small.npz \\
        --out=runs/wide/small.npz

prints its length, and writes the checkpoint with the length unit that makes it
as long as the learning rate (`training.evaluation.length_unit`).
"""

import json
import pathlib

from absl import app, flags

from training.common import checkpoints
from training.evaluation import length_unit

WEIGHTS = flags.DEFINE_string(
    "weights", None, "Checkpoint of a run.", required=True
)
OUT = flags.DEFINE_string(
    "out",
    None,
    "File for the checkpoint with the length unit; default: only print the "
    "unit.",
)


def main(argv):
    """Prints the step's length and the unit as JSON; writes the checkpoint."""
    if len(argv) > 1:
        raise app.UsageError(f"No arguments are taken. Received: {argv[1:]}")
    arrays, info = checkpoints.read(WEIGHTS.value)
    found = length_unit.with_unit(arrays, info)
    lengths = [
        length_unit.first_step(length_unit.rule(i), arrays["state/average"])
        for i in (info, found)
    ]
    if OUT.value:
        path = pathlib.Path(OUT.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.write(path, arrays, found)
    names = ("first_step", "first_step_with_unit")
    result = dict(zip(names, lengths, strict=True))
    print(json.dumps(result | {"length_unit": found["config"]["length_unit"]}))


if __name__ == "__main__":
    app.run(main)
