"""Meta-training within a budget of seconds, saved and continued."""

import pathlib
import time

import numpy as np
from tqdm import tqdm

from training.common import checkpoints
from training.engine.config import MetaConfig
from training.figures.settings import SettingsError
from training.runs.local import Run

SAVE_SECONDS = 30.0


def meta_train(
    rule,
    rows: tuple,
    config: MetaConfig,
    seconds: float,
    path: pathlib.Path,
    what: str,
) -> tuple[np.ndarray, dict]:
    """The averaged meta-parameters after this many seconds, without compiling.

    An existing file is continued, and left as it is once its budget is spent.
    A later start with a larger budget continues from it.

    Args:
        rule: see `training.rules.base`.
        rows: rows of a set.
        config: settings of meta-training.
        seconds: how long to meta-train.
        path: path of the file.
        what: text for the progress bar.

    Returns:
        The vector [M], and a dictionary of "seconds", "iterations" and
        "meta_loss", the mean of the last tenth of the iterations.

    Raises:
        SettingsError: the file has another rule, other rows or settings.
    """
    kind = {
        "rule": repr(rule),
        "rows": [row.name for row in rows],
        "config": config.to_json(),
    }
    arrays, info = None, {"kind": kind, "seconds": 0.0, "losses": []}
    if path.exists():
        arrays, info = checkpoints.read(path)
        if _today(info["kind"]) != kind:
            raise SettingsError(
                f"{path} must be of {kind['rule']} with the same settings, or "
                f"be removed. Received: {info['kind']['rule']}"
            )
    if info["seconds"] < seconds:
        run = Run(rule, rows, config)
        if arrays is not None:
            run.restore(arrays)
        compiled = run.compile(workers=2)
        for _ in tqdm(
            compiled, total=len(rows), desc=f"{what}, compiling", unit="row"
        ):
            pass
        _spend(run, info, seconds, path, what)
        arrays = run.arrays()
        checkpoints.write(path, arrays, info)
    last = max(1, len(info["losses"]) // 10)
    return arrays["state/average"], {
        "seconds": round(info["seconds"], 1),
        "iterations": len(info["losses"]),
        "meta_loss": float(np.mean(info["losses"][-last:])),
    }


def _today(kind: dict) -> dict:
    """Adds settings that are newer than the file, at their defaults."""
    try:
        config = MetaConfig.from_json(kind["config"])
    except ValueError:
        return kind  # From a later version with unknown settings.
    return kind | {"config": config.to_json()}


def _spend(run: Run, info: dict, seconds: float, path, what: str):
    """Runs meta-iterations until the budget is spent."""
    saved = info["seconds"]
    with tqdm(total=round(seconds), desc=what, unit="s") as bar:
        while info["seconds"] < seconds:
            start = time.perf_counter()
            _, statistics = run.iterate()
            info["seconds"] += time.perf_counter() - start
            info["losses"].append(statistics.meta_loss)
            bar.n = min(round(info["seconds"]), bar.total)
            bar.refresh()
            if info["seconds"] - saved >= SAVE_SECONDS:
                checkpoints.write(path, run.arrays(), info)
                saved = info["seconds"]
