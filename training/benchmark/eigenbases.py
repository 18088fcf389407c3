"""Cost of eigenbases: an update of matrices with them and without."""

import dataclasses
import math
import statistics

from training.benchmark.update import Update, step_times, variables_of
from training.common.tables import table
from training.evaluation import candidates
from training.rules.hierarchical import Hierarchical

LIMIT = 256.0
"""The longest side that has a basis."""

LAST = (2, 2)
"""The last matrix of a model has no basis: all others then do."""

MATRICES = {
    "64 x 64": [(64, 64)] * 16,
    "128 x 128": [(128, 128)] * 8,
    "256 x 256": [(256, 256)] * 4,
    "512 x 128": [(512, 128)] * 4,
    "3 x 3 x 64 x 64": [(3, 3, 64, 64)] * 4,
    "512 x 512, no basis": [(512, 512)],
}


def run(seconds: float, only: str | None = None) -> dict:
    """Prints nanoseconds per parameter and bytes; returns the figures.

    Args:
        seconds: measuring time for each kind of matrix and optimizer.
        only: only kinds whose names contain this; None for all.
    """
    rule, vector = candidates.load("pretrained")
    rows, figures = [], {}
    for name, shapes in MATRICES.items():
        if only and only not in name:
            continue
        updates = [
            Update(
                candidates.optimizer(Hierarchical(config), vector),
                variables_of([*shapes, LAST]),
                "graph",
            )
            for config in (
                dataclasses.replace(
                    rule.config, eigenbasis=0.0, basis_length=0.0
                ),
                dataclasses.replace(rule.config, eigenbasis=LIMIT),
            )
        ]
        first = [update.first()[0] for update in updates]
        size = sum(map(math.prod, shapes))
        without, own = step_times(updates, seconds)
        ratio = statistics.median(
            b / a for a, b in zip(without, own, strict=True)
        )
        nanoseconds = [
            1e9 * statistics.median(t) / size for t in (without, own)
        ]
        more = _bytes(updates[1]) / size
        rows.append(
            [
                name,
                f"{nanoseconds[0]:.0f}",
                f"{nanoseconds[1]:.0f}",
                f"{ratio:.2f}",
                f"{more:.1f}",
                f"{first[0]:.1f}",
                f"{first[1]:.1f}",
            ]
        )
        figures[name] = {"ratio": round(ratio, 3), "bytes": round(more, 2)}
    print(f"An update of matrices, bases on sides of up to {LIMIT:.0f}")
    print(
        table(
            [
                "matrices",
                "ns/param",
                "with bases",
                "ratio of pairs",
                "bytes/param more",
                "first step s",
                "with bases",
            ],
            rows,
        )
    )
    return figures


def _bytes(update) -> int:
    """Bytes of moments and bases."""
    return sum(
        4 * math.prod(v.shape)
        for basis in update.optimizer._slots.bases.values()
        for v in basis.variables[1:]
    )
