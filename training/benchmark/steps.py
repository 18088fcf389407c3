"""One compiled update on each backend, and the device it runs on.

A backend's own package is imported only where it is used, so that measuring one
backend does not need the others.
"""

import os
import pathlib
import platform
import sys

import keras

BACKEND = keras.backend.backend()
GRAPH, JIT, EAGER = "graph", "jit", "eager"
# The first one is what `fit` does by default.
MODES = {"tensorflow": (GRAPH, JIT), "jax": (JIT,), "torch": (EAGER,)}[BACKEND]


def use_cores(count: int):
    """Limits the backend, and this process, to this many cores; 0 means all.

    Call it before the first tensor is made, since JAX starts its threads then.
    """
    if not count:
        return
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:count]
        os.sched_setaffinity(0, cores)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)
    elif BACKEND == "torch":
        import torch

        torch.set_num_threads(count)


def device() -> str:
    """The model of the GPU, or of the CPU."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            details = tf.config.experimental.get_device_details(gpu)
            return details.get("device_name", gpu.name)
    elif BACKEND == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return jax.devices()[0].device_kind
    else:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    return _processor()


INSTRUCTIONS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16",
                "amx_bf16", "asimd", "sve")  # fmt: skip
"""Sets of instructions on which the speed of vector arithmetic depends."""


def instructions() -> str:
    """Those of `INSTRUCTIONS` that the CPU has, and its caches, on Linux."""
    told = _cpuinfo()
    flags = told.get("flags", told.get("Features", "")).split()
    found = [name for name in INSTRUCTIONS if name in flags]
    return (
        f"{' '.join(found) or 'unknown'}; {told.get('cache size', '?')} cache"
    )


def _cpuinfo() -> dict[str, str]:
    """What Linux tells about the first processor."""
    if sys.platform != "linux":
        return {}
    first = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _processor() -> str:
    name = _cpuinfo().get("model name")
    return name or platform.processor() or platform.machine()


def finished(results):
    """Returns when the device has computed the results."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        # On a GPU a call returns before its kernels have run.
        tf.test.experimental.sync_devices()
    elif BACKEND == "jax":
        import jax

        jax.block_until_ready(results)
    else:
        import torch

        if torch.accelerator.is_available():
            torch.accelerator.synchronize()


def new_step(optimizer, variables, grads, mode: str):
    """A function that takes one step, and returns when the device is done.

    Args:
        optimizer: any Keras optimizer, built.
        variables: variables that it updates.
        grads: their gradients, tensors.
        mode: one of `MODES`.
    """
    if BACKEND == "tensorflow":
        return _tensorflow_step(optimizer, grads, mode)
    if BACKEND == "jax":
        return JaxStep(optimizer, variables, grads)
    return _torch_step(optimizer, grads)


def _tensorflow_step(optimizer, grads, mode: str):
    import tensorflow as tf

    step = tf.function(lambda: optimizer.apply(grads), jit_compile=mode == JIT)

    def run():
        finished(step())

    return run


def _torch_step(optimizer, grads):
    import torch

    def run():
        with torch.no_grad():
            finished(optimizer.apply(grads))

    return run


class JaxStep:
    """`stateless_apply`, compiled, with its state donated, as in `fit`.

    The state is kept here: the first step consumes the variables' own values.
    """

    def __init__(self, optimizer, variables, grads):
        import jax

        def step(values, state, grads):
            return optimizer.stateless_apply(state, grads, values)

        self._wait, self._grads = jax.block_until_ready, grads
        self._kept = (
            [v.value for v in variables],
            [v.value for v in optimizer.variables],
        )
        self._jitted = jax.jit(step, donate_argnums=(0, 1))
        self._compiled = None

    def __call__(self):
        """Takes one step."""
        if self._compiled is None:
            lowered = self._jitted.lower(*self._kept, self._grads)
            self._compiled = lowered.compile()
        self._kept = self._wait(self._compiled(*self._kept, self._grads))

    def extra_bytes(self) -> int:
        """Bytes that the compiled step needs beside its arguments."""
        memory = self._compiled.memory_analysis()
        new = memory.output_size_in_bytes - memory.alias_size_in_bytes
        return memory.temp_size_in_bytes + max(new, 0)
