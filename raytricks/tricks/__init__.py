"""The bag of tricks: one file each, pure functions of numbers, tensors and modules.

`table.py` lists every trick with its file, its source and its switches (TRICKS); docs/tricks.md
explains them. Three files are parts of others: `schedule.py` puts warmup and decay together,
`statistics_guard.py` keeps an overflow of mixed precision out of the batch-norm statistics, and
`layerwise.py` is what LARS and LAMB share.
The ResNet variants are raytricks/models/resnet.py.
"""
