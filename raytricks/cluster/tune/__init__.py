"""The trials of a study on Ray Tune.

driver      carry them out, follow them, pass signals on
tuner       Ray Tune's Tuner for them, with schedulers and search (Optuna)
trial       trials of one worker, in actors that stay; nested: of several workers
events      what happens to trials, told and noted
"""
