"""The stages of a run, as the commands that made them."""


def commands(stages: list) -> list[str]:
    """The commands that were run, stage by stage."""
    lines = []
    for stage in stages:
        if "adjusted" in stage:
            lines.append(_adjustment(stage["adjusted"]))
            continue
        flags_ = [f"--{k}={v}" for k, v in stage["settings"].items()]
        if "strategy" in stage:
            flags_.append(f"--strategy={stage['strategy']}")
        start = ["--start=small.npz"] * bool(lines)
        lines.append(
            " ".join(
                ["python -m training.meta_train --train_dir=DIR"]
                + start + flags_
            )
            + f"  # from meta-iteration {stage['from']:,}"
        )  # fmt: skip
    return lines


def _adjustment(adjusted: dict) -> str:
    """The command that made an `adjust`ment."""
    flags_ = [
        f"--{flag}={name}={number}"
        for flag, changes in adjusted.items()
        for name, number in changes.items()
    ]
    first = "python -m training.adjust --weights=small.npz --out=small.npz"
    return " ".join([first, *flags_])
