"""The Ray layer: the only package that imports ray.

session   connect to a cluster or start one on this machine, quietly
driver    launch the workers of a run, follow them, pass signals on
worker    what runs in each of them: a thin shell around training.run_epochs
"""
