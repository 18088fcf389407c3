"""Deep and wide residual networks: what they are, and how they are compared."""

import csv

import pytest

from tests import tiny_pictures
from training.common.results import Results
from training.evaluation.practice import contenders
from training.evaluation.practice.score import final_loss
from training.figures import captions_beyond, depth_width
from training.figures.settings import Settings

slow = pytest.mark.slow


@pytest.mark.parametrize(
    "depth, width, stages", [(20, 1, (16, 32, 64)), (8, 4, (64, 128, 256))]
)
def test_the_networks_are_resnets(depth, width, stages):
    model = depth_width.resnet(depth, width)
    kernels = [
        v.shape
        for v in model.trainable_variables
        if v.path.endswith("kernel") and v.shape[:2] == (3, 3)
    ]
    # Depth counts the first convolution and the dense layer, not shortcuts.
    assert len(kernels) == depth - 2 + 1
    each = (depth - 2) // 3
    assert [k[3] for k in kernels[1:]] == [
        filters for filters in stages for _ in range(each)
    ]
    # Stages halve the picture; what is averaged has 8 x 8 positions.
    (pooled,) = [x for x in model.layers if "pooling" in x.name]
    assert pooled.input.shape[1:] == (8, 8, stages[-1])


def test_resnet_110_has_the_published_size():
    """1.7 million parameters (He et al., 2016), as ResNet-20 has 0.27."""
    assert round(depth_width.resnet(20, 1).count_params() / 1e6, 2) == 0.27
    assert round(depth_width.resnet(110, 1).count_params() / 1e6, 1) == 1.7


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(depth_width, "DEPTHS", (8,))
    monkeypatch.setattr(depth_width, "WIDTHS", (1, 2))
    monkeypatch.setattr(depth_width, "RATES", (1e-4, 1e-2))
    monkeypatch.setattr(depth_width, "BATCH", 2)
    monkeypatch.setattr(depth_width, "FIRST", "ResNet-8 x1")


@slow
def test_the_figure(tmp_path, small):
    data = tiny_pictures.prepare(tmp_path / "data")
    settings = Settings(out=tmp_path, steps=100, data_dir=str(data))
    jobs = tmp_path / "jobs.csv"
    first = depth_width.run(
        Settings(out=tmp_path, steps=100, data_dir=str(data), only=("8 x1",)),
        Results(jobs),
    )
    kept = jobs.read_text().splitlines()
    assert len(kept) == 3 and first["growth"] == 1
    numbers = depth_width.run(settings, Results(jobs))
    # Only the wider network was run.
    assert jobs.read_text().splitlines()[:3] == kept
    assert [row["network"] for row in numbers["rows"]] == [
        "ResNet-8 x1", "ResNet-8 x2",
    ]  # fmt: skip
    narrow, wide = numbers["rows"]
    assert narrow == first["rows"][0]
    assert numbers["growth"] == pytest.approx(
        max(1, wide["ratio"] / narrow["ratio"])
    )
    # The best Adam's loss is the lower one of the two that are stored.
    task = depth_width.task("ResNet-8 x1", str(data))
    losses = {
        rate: final_loss(runs[0])
        for rate, runs in depth_width._runs(
            task,
            contenders.adam()._replace(rates=depth_width.RATES),
            100,
            1,
            Results(jobs),
        ).items()
    }
    assert narrow["adam_loss"] == min(losses.values())
    assert losses[narrow["best_adam"]] == narrow["adam_loss"]
    assert narrow["ratio"] == pytest.approx(
        narrow["loss"] / narrow["adam_loss"]
    )
    with (tmp_path / "depth_width.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert (tmp_path / "depth_width.png").read_bytes().startswith(b"\x89PNG")
    text, behind = captions_beyond.depth_width(numbers)
    assert "| ResNet-8 x2 |" in text and "Adam at the best of 2 rates" in text
    assert len(behind) == sum(row["ratio"] > 1 for row in numbers["rows"])
