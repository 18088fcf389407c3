"""The parts of `python -m training.evaluate_imagenet`.

From the bottom up: `models`, `optimizers`, `objective`; `source` (records of
tensorflow-datasets), `pictures` (from a record to a picture), `pipeline` (the
order of pictures, and batches); `settings`, `files` (what a run writes), `run`
(the training), `forecast`, `figure_8b`.
"""
