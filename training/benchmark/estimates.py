"""The forecasts of `hrnn_opt.estimate` compared with measurements."""

import statistics

import keras

import hrnn_opt
from training.benchmark.steps import GRAPH, JIT
from training.benchmark.update import Update
from training.common.memory import Peak, fill_free_memory
from training.common.tables import table

BYTES_LIMIT, TIME_LIMIT = 0.1, 0.5  # largest accepted relative errors
ROUNDS = 3


def small_mlp() -> keras.Model:
    """784-256-128-10, as for MNIST."""
    return keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ],
        name="small_mlp",
    )


def _models(name: str | None) -> dict:
    def application(name):
        return lambda: getattr(keras.applications, name)(weights=None)

    if name is not None and not hasattr(keras.applications, name):
        raise ValueError(
            "Flag --model must name a model of keras.applications, such as "
            f"ResNet50V2. Received: --model={name}"
        )
    name = name or "ResNet50V2"
    return {"small MLP": small_mlp, name: application(name)}


class Measured:
    """The actual cost of a model's update.

    Args:
        model: model whose variables are updated.
        mode: one of `training.benchmark.steps.MODES`.
    """

    def __init__(self, model, mode: str):
        self.optimizer = hrnn_opt.HierarchicalRNN()
        self._update = Update(self.optimizer, model.trainable_variables, mode)
        self._update.seconds()

    def slot_bytes(self) -> int:
        """Bytes of everything that the optimizer holds."""
        held = [*self.optimizer.variables, self.optimizer.meta_parameters]
        return sum(v.numpy().nbytes for v in held)

    def peak_bytes(self) -> float:
        """State and temporaries; a median, since memory is counted in pages."""
        peaks = []
        for _ in range(3):
            filled = fill_free_memory()
            with Peak() as peak:
                self._update.seconds()
            peaks.append(1e6 * peak.megabytes)
            del filled
        return self.slot_bytes() + statistics.median(peaks)

    def seconds(self, repeats: int) -> float:
        """Median time of an update."""
        return statistics.median(self._update.seconds() for _ in range(repeats))


def run(
    name: str | None,
    seconds: float,
    only: str | None = None,
    jit_compile: bool = False,
) -> dict:
    """Forecast, measurement and their ratios for a small MLP and a network.

    Args:
        name: name of a model of keras.applications; None is ResNet50V2.
        seconds: measuring time for each figure of a forecast.
        only: leaves out networks whose label does not contain this.
        jit_compile: whether the step is one compiled program.
    """
    rows, result = [], {}
    networks = _models(name)
    chosen = {k: make for k, make in networks.items() if (only or "") in k}
    if not chosen:
        raise ValueError(
            f"Flag --only must be part of one of {', '.join(networks)}. "
            f"Received: --only={only}"
        )
    for label, make in chosen.items():
        model = make()
        model.compile(hrnn_opt.HierarchicalRNN(), jit_compile=jit_compile)
        forecast = hrnn_opt.estimate(model, batch=8, seconds=seconds)
        print(f"\n{label}\n{forecast}", flush=True)
        measured = Measured(model, JIT if jit_compile else GRAPH)
        # The machine's speed varies, so both are measured in turn.
        times = []
        for _ in range(ROUNDS):
            told = hrnn_opt.estimate(model, seconds=seconds).update_seconds
            times.append((told, measured.seconds(5)))
        pair = sorted(times, key=lambda pair: pair[0] / pair[1])[ROUNDS // 2]
        for key, unit, told, found, scale, limit in (
            ("slot_bytes", "state MB", forecast.slot_bytes,
             measured.slot_bytes(), 1e6, BYTES_LIMIT),
            ("peak_bytes", "state and temporaries MB", forecast.peak_bytes,
             measured.peak_bytes(), 1e6, BYTES_LIMIT),
            ("update_seconds", "update ms", *pair, 1e-3, TIME_LIMIT),
        ):  # fmt: skip
            ratio = told / found
            rows.append(
                [f"{label}: {unit}", f"{told / scale:.1f}",
                 f"{found / scale:.1f}", f"{ratio:.2f}",
                 "yes" if abs(ratio - 1) <= limit else "NO"]
            )  # fmt: skip
            result[f"{label} {key}"] = {
                "forecast": told,
                "measured": found,
                "ratio": round(ratio, 3),
            }
        del model, measured
    print()
    print(table(["what", "forecast", "measured", "ratio", "holds"], rows))
    return result
