"""What a run depends on: stored in its folder, and not to be changed later."""

import dataclasses
import json
import pathlib

from training.common import files


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that determines the result of a run, except its length."""

    model: str
    optimizer: str
    learning_rate: float | None  # None is the optimizer's default
    image_size: int
    batch_size: int  # size of the global batch
    precision: str
    seed: int
    shuffle_buffer: int
    train_split: str  # as tensorflow-datasets names it
    examples: int  # number of examples in the split

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training set."""
        return self.examples // self.batch_size

    def write(self, path: pathlib.Path):
        """Writes the settings to a JSON file."""
        text = json.dumps(dataclasses.asdict(self), indent=2)
        files.write(path, text + "\n")

    @classmethod
    def read(cls, path: pathlib.Path) -> "Settings":
        """The inverse of `write`.

        Raises:
            ValueError: the file is not one of settings.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path} must hold the settings of a run ({error})."
            ) from error

    def check(self, path: pathlib.Path):
        """Checks that a run with these settings may continue in a folder.

        Args:
            path: file of the settings that are stored there, if any.

        Raises:
            ValueError: a setting differs.
        """
        if not path.exists():
            return
        stored = Settings.read(path)
        for field in dataclasses.fields(self):
            old, new = getattr(stored, field.name), getattr(self, field.name)
            if old != new:
                raise ValueError(
                    f"Argument `{field.name}` must be {old!r}, as in {path}, "
                    "or the run must have another folder. "
                    f"Received: {field.name}={new!r}"
                )
