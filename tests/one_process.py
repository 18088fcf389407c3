"""Meta-training as in a cluster, but with all work in this process.

`python -m tests.one_process ROWS SETTINGS COUNT` prints, as JSON, the row and
the statistics of each of the first meta-iterations; started by
`test_cluster_programs.py`. ROWS are names, SETTINGS a JSON object.
"""

import json
import sys

import problems
from training.distributed.run import AsynchronousRun
from training.engine.config import MetaConfig
from training.rules.hierarchical import Hierarchical


def main(names: list[str], settings: dict, count: int):
    """Runs until as many meta-iterations are done."""
    rows = [
        row for row in problems.meta_training_set("paper") if row.name in names
    ]
    total = sum(row.weight for row in rows)
    rows = tuple(row._replace(weight=row.weight / total) for row in rows)
    run = AsynchronousRun(Hierarchical(), rows, MetaConfig(**settings))
    run.start()
    done = {}
    while len(done) < count:
        row, unrolls = run.results(120.0)
        for k, number in enumerate(unrolls.outcome.iteration):
            values = [float(x[k]) for x in unrolls.statistics]
            done[int(number)] = row.name, values
    list(run.finish())
    print(json.dumps([done[number] for number in range(count)]))


if __name__ == "__main__":
    main(sys.argv[1].split(","), json.loads(sys.argv[2]), int(sys.argv[3]))
