"""The bag of tricks: one file each, pure functions of numbers, tensors and modules.

`table.py` lists every trick with its file, its source and its switches (TRICKS); docs/tricks.md
explains them. Two files are parts of others: `schedule.py` puts warmup and decay together, and
`statistics_guard.py` keeps an overflow of mixed precision out of the batch-norm statistics.
The ResNet variants are raytricks/models/resnet.py.
"""
