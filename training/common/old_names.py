"""Names of earlier versions, where a record of one is read.

Runs go on for weeks and their files are kept. A setting, or an array of a
checkpoint, that has been renamed since is read under the name it has now. All
that reads a record of an earlier version reads it through here.
"""

SETTINGS = {
    "foresight": "horizon_discount",
    "disturbed": "step_length_perturbation",
    "revival": "vanishing_step_penalty",
    "calm": "long_step_penalty",
}
"""Settings of meta-training, and flags, by their old names."""

ARRAYS = {"tallies/": "counters/"}
"""Beginnings of the names of a checkpoint's arrays."""


def settings(values: dict) -> dict:
    """Settings by the names that they have now."""
    return {SETTINGS.get(name, name): value for name, value in values.items()}


def arrays(values: dict) -> dict:
    """A checkpoint's arrays by the names that they have now."""
    renamed = {}
    for name, value in values.items():
        for old, new in ARRAYS.items():
            if name.startswith(old):
                name = new + name.removeprefix(old)
        renamed[name] = value
    return renamed


def info(values: dict) -> dict:
    """What stands beside a checkpoint's arrays, with settings as of now."""
    renamed = dict(values)
    if "config" in values:
        renamed["config"] = settings(values["config"])
    if "stages" in values:
        renamed["stages"] = [
            stage | {"settings": settings(stage["settings"])}
            for stage in values["stages"]
        ]
    return renamed
