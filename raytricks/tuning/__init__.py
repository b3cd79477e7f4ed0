"""What a study of many trials is made of and what it found, without Ray.

space, points            the values that trials are trained with
selection                the images that rank them, and those that judge the winner
study_task, trial_*      a trial as a run directory: run, stopped, gone on with, handed over
study_directory          the files of a study
speed, forecast          what a study will cost
outcome                  what was found, as plain values
analysis, certificate    which key mattered; whether the winner is better beyond noise
"""
