"""The parts of `python -m training.evaluate_imagenet`.

From the bottom up: `models`, `optimizers`, `objective`; `source` (records of
tensorflow-datasets), `pictures` (one record to one picture), `pipeline` (in
which order, in what batches); `settings`, `files` (what a run keeps), `run`
(the training), `forecast`, `figure_8b`.
"""
