"""Does the learned optimizer hold in deep and in wide residual networks?

ResNets v2 (He et al., 2016) of 20, 56 and 110 layers on CIFAR-10, with batch
normalization, as they are and four times as wide; the best of three Adam rates
beside it. They bridge the gap between small networks and those for ImageNet.
"""

import functools
import re

import keras
import numpy as np
from keras import layers
from tqdm import tqdm

from problems import pictures as data
from training.common import output, palette
from training.common.results import Results
from training.common.tables import table
from training.evaluation.practice import contenders, pictures, score
from training.evaluation.practice.runs import Run, Trainer
from training.evaluation.practice.task import FINAL, Task, classification
from training.evaluation.rivals import OUTPUT
from training.figures.comparison import OWN
from training.figures.settings import Settings

STEPS, BATCH = 1500, 16
DEPTHS, WIDTHS = (20, 56, 110), (1, 4)
RATES = (3e-4, 1e-3, 3e-3)
FIRST = "ResNet-20 x1"  # what the others are compared with


def resnet(depth: int, width: int) -> keras.Model:
    """A pre-activation ResNet for pictures of 32 x 32.

    Args:
        depth: number of layers, 6 n + 2: three stages of n blocks.
        width: factor of the stages' 16, 32 and 64 channels.
    """
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16 * width, 3, padding="same", use_bias=False)(inputs)
    for stage in range(3):
        for block in range((depth - 2) // 6):
            stride = 2 if stage and not block else 1
            x = _block(x, 16 * width * 2**stage, stride)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name=OUTPUT)(x))


def _block(x, filters: int, stride: int):
    y = layers.ReLU()(layers.BatchNormalization()(x))
    if x.shape[-1] != filters:
        x = layers.Conv2D(filters, 1, strides=stride, use_bias=False)(y)
    for n, step in enumerate((stride, 1)):
        if n:
            y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(
            filters, 3, strides=step, padding="same", use_bias=False
        )(y)
    return layers.Add()([x, y])


def networks() -> dict[str, tuple[int, int]]:
    """Depth and width of each network, by name."""
    return {
        f"ResNet-{depth} x{width}": (depth, width)
        for width in WIDTHS
        for depth in DEPTHS
    }


def task(name: str, data_dir: str | None = None) -> Task:
    """The network of a name as a task of minibatches with replacement."""
    depth, width = networks()[name]
    return Task(
        name=re.sub(r"\W", "_", name.lower()),
        about=f"{name}, batch normalization, CIFAR-10",
        half=FINAL,  # Nothing is decided on it.
        source=lambda: pictures.classified("cifar10", 32, BATCH, data_dir),
        network=lambda: resnet(depth, width),
        objective=classification(),
        pictures="cifar10",
        classifies=True,
    )


def run(settings: Settings, results: Results) -> dict:
    """Draws the figure; returns ratios to the best Adam.

    Minibatches have `BATCH` pictures of the 20,000 that the practice suite
    reads; `Settings.batch` and `Settings.pictures` do not matter.
    """
    names = settings.selected(networks())
    data.prepared("cifar10", settings.data_dir)
    steps, seeds = settings.steps_or(STEPS, 50), settings.seeds or 1
    own = contenders.learned(settings.weights)
    adam = contenders.adam()._replace(rates=RATES)
    rows, curves = [], {}
    for name in tqdm(names, unit="network"):
        of = task(name, settings.data_dir)
        (mine,) = _runs(of, own, steps, seeds, results).values()
        rivals = _runs(of, adam, steps, seeds, results)
        best = score.best_rate(rivals)
        rows.append(_row(name, mine, rivals, best))
        curves[name] = {OWN: mine, f"Adam {best:g}": rivals[best]}
    growth = _growth(rows)
    _draw(curves, settings)
    header = list(rows[0])
    output.write_csv(
        settings.out / "depth_width.csv",
        header,
        ([_cell(x) for x in row.values()] for row in rows),
    )
    print(
        f"\nMean loss of the last 100 of {steps} minibatches / that of the "
        f"best of {len(RATES)} Adam rates, {seeds} seed(s)\n"
    )
    print(table(header, [[_cell(x) for x in r.values()] for r in rows]))
    return {
        "steps": steps,
        "seeds": seeds,
        "batch": BATCH,
        "rates": RATES,
        "rows": rows,
        "growth": growth,
    }


def _runs(of: Task, contender, steps, seeds, results) -> dict:
    """The runs of an optimizer, a list over seeds by learning rate.

    Only what is not stored yet is run, and nothing traced without a run.
    """
    trainer = functools.cache(
        lambda: Trainer(of, of.source(), contender, steps)
    )

    def numbers(rate, seed):
        key = (
            f"{of.key()}; {contender.name} {rate:g}; seed {seed}; "
            f"{steps} steps; batch {BATCH}"
        )
        return results.get(key, lambda: trainer().run(seed, rate).numbers())

    return {
        rate: [Run.from_numbers(numbers(rate, seed)) for seed in range(seeds)]
        for rate in contender.rates
    }


def _row(name, mine, rivals, best) -> dict:
    """A line of the table."""
    depth, width = networks()[name]
    own = score.score(mine, rivals[best], 0.0)
    adam = score.score(rivals[best], rivals[best], best)
    return {
        "network": name,
        "parameters": int(resnet(depth, width).count_params()),
        "ratio": own.ratio,
        "best_adam": best,
        "loss": own.loss,
        "adam_loss": adam.loss,
        "accuracy": own.accuracy,
        "adam_accuracy": adam.accuracy,
        "diverged": own.diverged,
    }


def _growth(rows: list[dict]) -> float | None:
    """The largest ratio over that of the shallow and narrow network."""
    ratios = {row["network"]: row["ratio"] for row in rows}
    if FIRST not in ratios:
        return None
    return max(ratios.values()) / ratios[FIRST]


def _cell(x):
    return f"{x:.3g}" if isinstance(x, float) else x


def _draw(curves: dict, settings: Settings):
    figure, all_axes = output.page(len(curves), columns=min(3, len(curves)))
    for (name, runs), axes in zip(curves.items(), all_axes, strict=True):
        for k, (who, of_seeds) in enumerate(runs.items()):
            losses = np.mean([one.losses for one in of_seeds], axis=0)
            axes.plot(
                50 * (1 + np.arange(len(losses))),
                losses,
                label=who,
                **palette.style(k),
            )
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step")
        axes.set_ylabel("minibatch loss (nats)")
        axes.grid(True, alpha=0.2)
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle("Deeper and wider: ResNets on CIFAR-10", fontsize=10)
    output.save(figure, settings.out / "depth_width.png")
