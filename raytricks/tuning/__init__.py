"""What a study of many trials is made of and what it found, without Ray.

space, trial_params      the values that trials are trained with
study_task               what its trials carry out; the images that rank them, and those that judge the winner
trial_*, pbt             a trial as a run directory: run, stopped, gone on with, handed over
study_directory          the files of a study
forecast                 what a study will cost
outcome                  what was found, as plain values
analysis, certificate    which key mattered; whether the winner is better beyond noise
"""
