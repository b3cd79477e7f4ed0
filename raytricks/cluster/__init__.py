"""The Ray layer: the only package that imports ray.

session         connect to a cluster or start one on this machine, quietly
authentication  Ray's token: where it is, when it is used, who can read it
placement       which workers fit on which nodes

driver      launch the workers of a run, follow them (follower), pass signals on (requests)
trainer     Ray Train's trainer of a run, begun again when its workers have to move
worker      what runs in each of them: a thin shell around training.run_epochs
elastic     nodes that are drained, saving before workers come or go, back to all of them
failures    what ended a worker, and what is not tried again
groups      resources of workers whose controller was killed

tune/    the trials of a study
jobs/    commands that run on a cluster
checks/  the environment of a run
"""
