"""Graphs are kept for the next start, beside XLA's programs.

Tracing a meta-step takes seconds, reading its graph a tenth of that. And XLA's
programs are found by the names of traced functions, which TensorFlow numbers
by a counter of the process: the same functions, traced in another order or by
two threads, would be compiled anew. Here a graph's functions get names of
their content, so that the same graph finds the same programs.
"""

import functools
import hashlib
import io
import os
import pathlib
import pickle
import re
import tempfile

import keras
import numpy as np
import tensorflow as tf
from absl import logging

PACKAGES = ("hrnn_opt", "problems", "training")
"""Whose files decide whether a kept graph is still the right one."""

PLAIN = ("builtins", "copyreg", "numpy")

FOLDER = re.compile(r"--tf_xla_persistent_cache_directory=(\S+)")
"""Where XLA keeps its programs."""

TRACED = re.compile(r"_\d+$")
"""What TensorFlow's counter adds to a name."""


def kept(function, *parts):
    """A function that gives the same, and whose graph is read when it can be.

    It is for functions of tensors that will be traced and are not
    differentiated. Where XLA's programs are not kept (`compilation_cache`), or
    with parts from elsewhere than this project, it is the function itself.

    Args:
        function: of nests of tensors, a method of a class in `PACKAGES`.
        parts: all that the graph depends on besides arguments; what can be
            pickled.

    Returns:
        A function of the same arguments.
    """
    folder = FOLDER.search(os.environ.get("TF_XLA_FLAGS", ""))
    key = folder and _key(function, parts)
    if not key:
        return function
    path = pathlib.Path(folder[1], "graphs", f"{key}.graph")

    def imported(*args):
        graph = _read(path)
        if graph is None:
            graph = _trace(function, args)
            if graph is None:
                return function(*args)
            _write(path, graph)
        return graph.call(*args)

    return imported


class _Graph:
    """A traced function without anything of its process.

    Args:
        definition: `tf.compat.v1.GraphDef`, serialised.
        inputs: names of the flat arguments' tensors.
        outputs: names of the flat results' tensors.
        structure: of the results.
    """

    def __init__(self, definition: bytes, inputs, outputs, structure):
        self.definition = definition
        self.inputs, self.outputs = inputs, outputs
        self.structure = structure

    def call(self, *args):
        """The function's results."""
        graph = tf.compat.v1.GraphDef.FromString(self.definition)
        flat = tf.nest.flatten(args)

        def imported(*flat):
            inputs = dict(zip(self.inputs, flat, strict=True))
            return tf.graph_util.import_graph_def(graph, inputs, self.outputs)

        # Only a wrapped function makes the graph's own functions known.
        specs = [tf.TensorSpec(x.shape, x.dtype) for x in flat]
        flat = tf.compat.v1.wrap_function(imported, specs)(*flat)
        return tf.nest.pack_sequence_as(self.structure, flat)


def _trace(function, args) -> _Graph | None:
    """The graph, unless it holds something of this process."""
    specs = tf.nest.map_structure(
        lambda x: tf.TensorSpec(x.shape, x.dtype), args
    )
    # Not in an init_scope, where no derivative is recorded.
    traced = tf.function(function, autograph=False)
    traced = traced.get_concrete_function(*specs)
    graph = traced.graph.as_graph_def()
    bodies = [function.node_def for function in graph.library.function]
    if traced.captured_inputs or any(
        node.device for nodes in [graph.node, *bodies] for node in nodes
    ):
        return None
    _rename(graph)
    return _Graph(
        graph.SerializeToString(deterministic=True),
        [x.name for x in traced.inputs],
        [x.name for x in traced.outputs],
        tf.nest.map_structure(lambda _: 0, traced.structured_outputs),
    )


def _rename(graph):
    """Gives the functions names of their number and of the graph's content.

    They come in the order in which they are called: TensorFlow's own is that of
    their names' hashes.
    """
    library = {f.signature.name: f for f in graph.library.function}
    order = {}

    def visit(nodes):
        for called in _calls(nodes):
            if called in library and called not in order:
                order[called] = f"{TRACED.sub('', called)}_{len(order)}"
                visit(library[called].node_def)

    visit(graph.node)
    functions = [library[name] for name in order]
    graph.library.Clear()
    graph.library.function.extend(functions)
    if not order:
        return
    _replace(graph, order)
    content = graph.SerializeToString(deterministic=True)
    content = hashlib.sha256(content).hexdigest()[:16]
    _replace(graph, {name: f"{name}_{content}" for name in order.values()})


def _calls(nodes):
    """Names of the functions and operations of some nodes."""
    for node in nodes:
        yield node.op
        for key in sorted(node.attr):
            value = node.attr[key]
            yield from (f.name for f in (value.func, *value.list.func))


def _replace(graph, names: dict):
    """Other names of functions, also where arguments are named by them."""
    pattern = re.compile("|".join(rf"{name}(?!\d)" for name in names))

    def new(text):
        return pattern.sub(lambda found: names[found[0]], text)

    for function in graph.library.function:
        signature = function.signature
        signature.name = new(signature.name)
        for argument in (*signature.input_arg, *signature.output_arg):
            argument.name = new(argument.name)
        results = {new(k): new(v) for k, v in function.ret.items()}
        function.ret.clear()
        function.ret.update(results)
        _replace_in(function.node_def, new)
    _replace_in(graph.node, new)


def _replace_in(nodes, new):
    for node in nodes:
        node.name, node.op = new(node.name), new(node.op)
        node.input[:] = [new(name) for name in node.input]
        # Of derivatives, which nobody takes of what was kept.
        node.attr.pop("_gradient_op_type", None)
        for value in node.attr.values():
            for called in (value.func, *value.list.func):
                if called.name:
                    called.name = new(called.name)


def _key(function, parts) -> str | None:
    """The name of a graph's file: of all that it depends on."""

    class Pickler(pickle.Pickler):
        def reducer_override(self, value):
            if isinstance(value, type) or callable(value):
                package = getattr(value, "__module__", "").partition(".")[0]
                if package not in PACKAGES + PLAIN:
                    raise pickle.PicklingError(f"Of another package: {value}")
            return NotImplemented

    content = io.BytesIO()
    try:
        kind = type(function.__self__)
        Pickler(content).dump((kind, function.__name__, parts))
    # What is defined inside a function cannot be named.
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    versions = tf.__version__, keras.__version__, np.__version__, _sources()
    return hashlib.sha256(
        content.getvalue() + repr(versions).encode()
    ).hexdigest()[:32]


@functools.cache
def _sources() -> str:
    """A hash of the packages' files."""
    root = pathlib.Path(__file__).parent.parent
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _write(path: pathlib.Path, graph: _Graph):
    """All of it or nothing."""
    content = pickle.dumps(vars(graph))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Threads of one process may write the same graph.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        beside = pathlib.Path(folder, path.name)
        beside.write_bytes(hashlib.sha256(content).digest() + content)
        beside.replace(path)


def _read(path: pathlib.Path) -> _Graph | None:
    """None where there is none, or a damaged one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        logging.warning("Damaged, and made anew: %s", path)
        return None
    return _Graph(**pickle.loads(content))
