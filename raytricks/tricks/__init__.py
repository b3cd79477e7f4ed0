"""The bag of tricks: one file each, pure functions of numbers, tensors and modules, and the Hooks that bring them in.

`raytricks.parts.tricks` has the row of every trick with its settings and switches; docs/tricks.md explains them.
Two files are parts of others: `layerwise.py` is what LARS and LAMB share, `sgd.py` torch's own optimizer.
The ResNet variants are raytricks/models/resnet.py.
"""
