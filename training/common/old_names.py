"""Names of earlier versions, for reading their records.

Runs last for weeks and their files are kept. A setting, or an array of a
checkpoint, that has been renamed since is read under its present name. All code
that reads records of earlier versions does so through this module.
"""

SETTINGS = {
    "foresight": "horizon_discount",
    "disturbed": "step_length_perturbation",
    "revival": "vanishing_step_penalty",
    "calm": "long_step_penalty",
}
"""Settings of meta-training, and flags, by their old names."""

ARRAYS = {"tallies/": "counters/"}
"""Prefixes of the names of a checkpoint's arrays, old to new."""


def settings(values: dict) -> dict:
    """Settings under their present names."""
    return {SETTINGS.get(name, name): value for name, value in values.items()}


def arrays(values: dict) -> dict:
    """A checkpoint's arrays under their present names."""
    renamed = {}
    for name, value in values.items():
        for old, new in ARRAYS.items():
            if name.startswith(old):
                name = new + name.removeprefix(old)
        renamed[name] = value
    return renamed


def info(values: dict) -> dict:
    """A checkpoint's info, with settings under their present names."""
    renamed = dict(values)
    if "config" in values:
        renamed["config"] = settings(values["config"])
    if "stages" in values:
        renamed["stages"] = [
            stage | {"settings": settings(stage["settings"])}
            for stage in values["stages"]
        ]
    return renamed
