"""The settings of a figure, as one frozen record."""

import dataclasses
import pathlib


class SettingsError(ValueError):
    """A setting that makes no sense, to be reported without a traceback."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of all figures; None leaves the choice to the figure.

    Args:
        out: folder of pictures, CSVs and finished jobs.
        weights: the learned optimizer's weights, by name or path.
        steps: number of steps of each run.
        seeds: number of runs of each optimizer, with seeds 0, 1, ...
        batch: size of the minibatches.
        pictures: number of training pictures of each data set.
        data_dir: folder in which tensorflow-datasets keeps its data.
        budget: seconds of meta-training for each optimizer.
        only: take only tasks, rows or variants with one of these in their name.

    Raises:
        SettingsError: a number that makes no sense.
    """

    out: pathlib.Path = pathlib.Path("runs/figures")
    weights: str = "pretrained"
    steps: int | None = None
    seeds: int | None = None
    batch: int = 64
    pictures: int = 2048
    data_dir: str | None = None
    budget: float | None = None
    only: tuple = ()

    def __post_init__(self):
        for name in ("steps", "seeds", "batch", "pictures", "budget"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise SettingsError(
                    f"Argument `{name}` must be positive. "
                    f"Received: {name}={value}"
                )
        if self.batch > self.pictures:
            raise SettingsError(
                "Argument `batch` must be at most "
                f"pictures={self.pictures}. Received: batch={self.batch}"
            )

    def steps_or(self, default: int, multiple: int = 1) -> int:
        """The number of steps, or the figure's default.

        Raises:
            SettingsError: the number is not a multiple of `multiple`.
        """
        steps = self.steps or default
        if steps % multiple:
            raise SettingsError(
                f"Argument `steps` must be a multiple of {multiple} here. "
                f"Received: steps={steps}"
            )
        return steps

    def selected(self, names) -> list:
        """The names that `only` selects.

        Raises:
            SettingsError: `only` selects none.
        """
        names = list(names)
        kept = [
            name
            for name in names
            if not self.only or any(part in name for part in self.only)
        ]
        if not kept:
            raise SettingsError(
                f"Argument `only` must be part of one of {', '.join(names)}. "
                f"Received: {', '.join(self.only)}"
            )
        return kept
