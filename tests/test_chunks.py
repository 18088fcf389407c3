"""Cutting and packing tensors changes only the cost."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN, weights
from hrnn_opt.model import chunks, kernels
from tests.reference_pair import ReferencePair, weights_file

RNG = np.random.default_rng(0)
SIZES = {
    "one": [5],
    "one large": [5000],
    "exact": [2048, 4096],
    "around": [2047, 2048, 2049],
    "small": [1] * 200,
    "biases": [3, 300, 10, 64, 640, 16, 17, 15],
    "many large": [20000, 7, 2048, 1],
    "random": [int(n) for n in 10 ** RNG.uniform(0, 4, 40)],
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def piece(monkeypatch):
    """A function that sets the size of the largest piece."""

    def change(size, block=chunks.BLOCK):
        chunks._pack.cache_clear()
        monkeypatch.setattr(chunks, "PIECE", size)
        monkeypatch.setattr(chunks, "BLOCK", block)

    yield change
    chunks._pack.cache_clear()


PLANS = {
    "chunks": {"one_program": False},
    "one program": {"one_program": True},
    "blocks": {"one_program": False, "blocks": True},
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", PLANS.values(), ids=PLANS)
def test_plan_covers_everything_once(piece, sizes, kind):
    piece(2048, block=256)
    plan = chunks.plan(tuple(sizes), **kind)
    seen = [np.zeros(n, int) for n in sizes]
    for chunk in plan.chunks:
        for p in chunk.pieces:
            assert 0 < p.size <= 2048
            seen[p.tensor][p.start : p.stop] += 1
    assert all(np.all(count == 1) for count in seen)
    ordered = [p for chunk in plan.chunks for p in chunk.pieces]
    for t, size in enumerate(sizes):
        own = [p for p in ordered if p.tensor == t]
        numbers = sorted(p.number for p in own)
        if "blocks" in kind:
            numbers = sorted(set(numbers))
        assert numbers == list(range(-(-size // 2048)))
        # What is joined in this order is the tensor.
        assert own == sorted(own)
        for p in own:
            assert p.start // 2048 == (p.stop - 1) // 2048 == p.number


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", PLANS.values(), ids=PLANS)
def test_rows_tell_owner_and_padding(piece, sizes, kind):
    piece(2048, block=256)
    plan = chunks.plan(tuple(sizes), **kind)
    totals = set()
    for chunk in plan.chunks:
        marks = [np.full((p.size,), p.tensor + 1.0) for p in chunk.pieces]
        joined = np.asarray(chunks.join(chunk, marks))
        totals.add((joined.size, len(chunk.owner)))
        assert joined.size <= 2048
        rows = joined.reshape(len(chunk.owner), -1)
        filled = chunk.filled
        if filled is None:
            filled = np.full(len(rows), rows.shape[1])
            assert not any(chunk.padding)
        for row, owner, count in zip(rows, chunk.owner, filled, strict=True):
            assert np.all(row[:count] == owner + 1) and not np.any(row[count:])
    if plan.mapped:
        assert len(totals) == 1 and len(plan.chunks) > chunks.UNROLLED
    elif kind["one_program"]:
        assert len(plan.chunks) <= chunks.UNROLLED


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", PLANS.values(), ids=PLANS)
def test_split_inverts_join(piece, sizes, kind):
    piece(2048, block=256)
    for chunk in chunks.plan(tuple(sizes), **kind).chunks:
        parts = [RNG.normal(size=(2, p.size)) for p in chunk.pieces]
        joined = chunks.join(chunk, parts)
        assert joined.shape[-1] == sum(p.size for p in chunk.pieces) + sum(
            chunk.padding
        )
        for part, again in zip(parts, chunks.split(chunk, joined), strict=True):
            np.testing.assert_array_equal(again, part)


def test_blocks_of_small_models_have_few_sizes(piece):
    piece(2048, block=256)
    programs, more = set(), []
    for width in range(8, 24):
        sizes = (25 * width, width, width * width, width, 10 * width, 10)
        blocks = chunks.plan(sizes, False, blocks=True).chunks
        assert len(blocks) <= 16
        padded = 0
        for block in blocks:
            filled = sum(p.size for p in block.pieces) + sum(block.padding)
            programs.add((filled, len(block.owner)))
            padded += filled
        (whole,) = chunks.plan(sizes, False).chunks
        more.append(
            padded - sum(p.size for p in whole.pieces) - sum(whole.padding)
        )
    assert len(programs) <= 3
    assert max(more) <= 0


FEW = [(20, 5), (3,), (8, 8), ()]
MANY = [(30, 20), (3,), ()]


def new_pair(path, shapes, **kwargs):
    variables = [
        keras.Variable(RNG.normal(size=s), dtype="float64", name=f"v{k}")
        for k, s in enumerate(shapes)
    ]
    return ReferencePair(path, variables=variables, **kwargs)


def draw(shapes, steps):
    return [
        [10 ** RNG.uniform(-1, 1) * RNG.normal(size=s) for s in shapes]
        for _ in range(steps)
    ]


@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
@pytest.mark.parametrize("shapes", [FEW, MANY], ids=["few", "many"])
def test_split_tensors_move_like_whole_ones(piece, path, mode, shapes):
    piece(64)
    sizes = tuple(int(np.prod(s)) for s in shapes)
    assert chunks.plan(sizes, one_program=True).mapped == (shapes is MANY)
    pair = new_pair(
        path, shapes, mode=mode, weight_decay=0.5,
        reference={"weight_decay": 0.5},
    )  # fmt: skip
    first, bad, *rest = draw(shapes, 4)
    bad[0][-1, -1] = np.nan
    pair.run([first, bad, *rest[:1]])
    pair.optimizer.swap_to_theta()
    pair.reference.to_theta()
    pair.check()
    pair.run(rest[1:])
    assert len(pair.optimizer._slots.states[0]) == -(-sizes[0] // 64)


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_blocks_move_like_whole_tensors(piece, tmp_path, attention, precision):
    path = weights_file(tmp_path, attention=attention)
    shapes = [(20, 5), (3,), (16, 16), (), (100,)]
    starts, *gradients = draw(shapes, 4)
    results = []
    for block in (16, 2**12):
        piece(2**17, block)
        variables = [keras.Variable(start, dtype=precision) for start in starts]
        optimizer = HierarchicalRNN(weights=path, state_dtype=precision)
        optimizer.swapped_by_callback = True
        optimizer.build(variables)
        step = tf.function(optimizer.apply)
        for own in gradients:
            step([keras.ops.cast(g, precision) for g in own])
        results.append([*optimizer.variables, *variables])
    assert len(chunks.plan((100, 3, 256, 1, 100), False, True).chunks) == 1
    for blocks, whole in zip(*results, strict=True):
        np.testing.assert_array_equal(
            keras.ops.cast(blocks, "float32"),
            keras.ops.cast(whole, "float32"),
            err_msg=blocks.path,
        )


def test_split_tensor_without_gradient_rests(piece, path):
    piece(64)
    pair = new_pair(path, FEW)
    all_gradients = draw(FEW, 3)
    all_gradients[1][0] = None
    pair.run(all_gradients)


def traces(config):
    return [
        kernels.compiled(function, config).experimental_get_tracing_count()
        for function in (kernels.sense_chunk, kernels.advance_chunk)
    ]


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("shapes, most", [([(5,)] * 60, 1), ([(64,)] * 20, 1),
                                          ([(200,)] * 6, 3)])  # fmt: skip
def test_many_tensors_need_few_programs(piece, tmp_path, mode, shapes, most):
    if shapes[0] != (5,):
        piece(64)
    # A config of its own, for which no other test has compiled programs.
    units = 2 + len(shapes) % 7 + (mode == "graph") * 7
    path = weights_file(tmp_path, param_units=units, tensor_units=3)
    config = weights.load(path).config
    before = traces(config)
    variables = [keras.Variable(RNG.normal(size=s)) for s in shapes]
    pair = ReferencePair(path, mode=mode, variables=variables)
    assert isinstance(pair.optimizer, HierarchicalRNN)
    counts = []
    for gradients in draw(shapes, 3):
        pair.step_optimizer(gradients)
        counts.append(traces(config))
    assert counts[0] == counts[2]
    for now, then in zip(counts[0], before, strict=True):
        assert 1 <= now - then <= most
