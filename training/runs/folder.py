"""The folder of a run: its files, and how it is resumed from them.

`config.json`, `checkpoint-N.npz`, `small.npz` (all but the pool, under 2 MB:
enough to continue elsewhere), `meta_train.csv`, `held_out.csv`, `events`.
"""

import csv
import dataclasses
import json
import pathlib
import time

from absl import logging
from tqdm import tqdm

from hrnn_opt.rule.config import RULE_VERSION, RuleConfig
from training.common import checkpoints, files
from training.common.tables import table
from training.engine.config import MetaConfig
from training.evaluation.held_out import RIVALS, HeldOut
from training.runs import adapting
from training.runs.log import RunLog


def settings(folder: pathlib.Path, given: dict) -> MetaConfig:
    """The run's settings: those stored in the folder, else the given ones.

    Raises:
        ValueError: a given one differs from the stored one.
    """
    path = folder / "config.json"
    if not path.exists():
        return MetaConfig(**given)
    stored = MetaConfig.from_json(path.read_text())
    for name, value in given.items():
        if getattr(stored, name) != value:
            raise ValueError(
                f"Flag --{name} must be {getattr(stored, name)!r}, as in "
                f"{path}, or left out. Received: --{name}={value!r}"
            )
    return stored


class RunFolder:
    """A run's files.

    Args:
        path: the folder; made by `prepare`.
        config: the settings.
        keep: number of checkpoints to keep, the newest.
    """

    def __init__(self, path: pathlib.Path, config: MetaConfig, keep: int = 2):
        self.path, self.config, self.keep = path, config, keep
        self._info, self._held_out = {}, None

    def prepare(self, run, start: pathlib.Path | None = None, how=None):
        """Restores a run from its last checkpoint, if there is one.

        Args:
            run: `training.runs.local.Run`, or another with the same interface.
            start: a checkpoint of another run, for a run that has not begun.
                That of a rule with other features is adapted (`adapting`),
                and so is that of a run that evolved other numbers, or none:
                gradients of another kind are no memory for the optimizer.
            how: facts for the model card besides the settings.

        Raises:
            ValueError: the checkpoint is damaged or belongs to another rule.
        """
        found, curve, info = checkpoints.newest(self.path), None, {}
        if found is None and start is not None:
            found, curve = _started_from(start)
            arrays, info = found
            if _differs(run.rule.config, info) or self._estimates_anew(info):
                arrays = adapting.adapted(
                    arrays, info, run.rule.config, self.config.seed
                )
                info = info | {
                    "rule_version": RULE_VERSION,
                    "rule_config": run.rule.config.to_dict(),
                }
                found, curve = (arrays, info), None
        if found is not None:
            arrays, info = found
            if info["rule_version"] != RULE_VERSION:
                raise ValueError(
                    "The checkpoint must be of rule version "
                    f"{RULE_VERSION}. Received: version {info['rule_version']}"
                )
            _check_rule(run.rule.config, info["rule_config"])
            run.restore(arrays)
            logging.info("Going on at meta-iteration %d.", run.state.iteration)
        self.path.mkdir(parents=True, exist_ok=True)
        if curve is not None:
            files.write(self.path / "meta_train.csv", curve)
        files.write(self.path / "config.json", self.config.to_json() + "\n")
        stages, changed = info.get("stages", []), self.config.changed()
        stage = {"settings": changed} | (how or {})
        begun = {"from": run.state.iteration, "rule_version": RULE_VERSION}
        if not stages or stages[-1] | begun != begun | stage:
            stages = [*stages, begun | stage]
        self._info = {
            "rule_version": RULE_VERSION,
            "rule_config": run.rule.config.to_dict(),
            "config": json.loads(self.config.to_json()),
            "stages": stages,
            "seconds": info.get("seconds", 0.0),
            "core_seconds": info.get("core_seconds", 0.0),
        }

    def _estimates_anew(self, info: dict) -> bool:
        """Whether a checkpoint's gradients were estimated in another way."""
        return info.get("config", {}).get("evolved", "") != self.config.evolved

    def log(
        self, run, limit, core_clock=time.process_time, columns=()
    ) -> RunLog:
        """A log in the folder that continues from the run's meta-iteration."""
        return RunLog(
            self.path, run.state.iteration, self._info["seconds"], limit,
            self._info["core_seconds"], core_clock, columns,
        )  # fmt: skip

    def save(self, run, log: RunLog):
        """Writes the checkpoint with the pool, and the small one."""
        log.flush()
        info = self._info | {
            "seconds": log.seconds,
            "core_seconds": log.core_seconds,
        }
        checkpoints.save(
            self.path, run.state.iteration, run.arrays(), info, self.keep
        )
        checkpoints.write(self.path / "small.npz", run.arrays(pool=False), info)

    def evaluate(self, run, log: RunLog):
        """Evaluates the averaged meta-parameters on held-out draws."""
        if self._held_out is None:
            self._held_out = HeldOut(run.rule, run.rows, run.config)
        results = self._held_out(run.state.average)
        log.held_out(run.state.iteration, results)
        with (self.path / "held_out.csv").open("a", newline="") as file:
            writer = csv.writer(file)
            for name, values in results.items():
                writer.writerow([run.state.iteration, name, *values])
        names = [name for name, _, _ in RIVALS]
        rows = [
            [name, *(f"{value:.2f}" for value in values)]
            for name, values in results.items()
        ]
        wins = [
            sum(own <= rival[k] - 0.1 for own, *rival in results.values())
            for k in range(len(names))
        ]
        rows.append(["ahead of", "", *(f"{n} of {len(results)}" for n in wins)])
        tqdm.write(
            f"\nHeld out, meta-iteration {run.state.iteration}: median log "
            f"loss after {self._held_out.steps} steps\n\n"
            + table(["row", "own", *names], rows) + "\n"
        )  # fmt: skip

    def summary(self, run, log: RunLog) -> str:
        """The message that a program prints at its end."""
        return (
            f"\n{run.state.iteration:,} meta-iterations, {run.inner_steps:,} "
            f"inner steps, {log.seconds:,.0f} s: {self.path}"
        )


def _check_rule(config: RuleConfig, found: dict):
    """Checks that a checkpoint's meta-parameters are those of the run's rule.

    Raises:
        ValueError: they are not; names the fields that differ.
    """
    own, missing = config.to_dict(), object()
    # Meta-parameters do not depend on these numbers.
    numbers = {f.name for f in dataclasses.fields(config) if f.type is float}
    names = sorted({*own, *found} - numbers)
    differ = [n for n in names if own.get(n, missing) != found.get(n, missing)]
    if differ:
        expected = {n: own[n] for n in differ if n in own}
        raise ValueError(
            "The checkpoint must be of a rule with the run's sizes and "
            f"features (flags such as --param_units): {expected}. "
            f"Received: { ({n: found[n] for n in differ if n in found}) }"
        )


def _differs(config: RuleConfig, info: dict) -> bool:
    """Whether a checkpoint's rule has other features or another version."""
    own = config.to_dict()
    found = adapting.found_config(info).to_dict()
    changed = [name for name, value in own.items() if found.get(name) != value]
    if any(type(own[name]) is int for name in changed):
        return False  # Of other sizes: nothing can be copied.
    features = [name for name in changed if isinstance(own[name], bool)]
    return bool(features) or info["rule_version"] != RULE_VERSION


def _started_from(path: pathlib.Path):
    """The checkpoint of another run, and its CSV if there is one beside it."""
    try:
        found = checkpoints.read(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Flag --start must be a whole checkpoint ({error}). "
            f"Received: --start={path}"
        ) from error
    logging.info("Starting from %s.", path)
    curve = path.with_name("meta_train.csv")
    return found, curve.read_text() if curve.exists() else None
