"""From config, data and hardware to numbers.

resolve     fills in every setting left open, from the data
recipe      what is trained: batch, steps, lr; the hardware has no say
parallel_plan  how this machine carries it out: shares, micro-batches, precision
preset      the default recipe for a folder without a config file
blending    mixup, CutMix or none, step by step
augmentation  colour jitter, TrivialAugment, random erasing
doctor      what is known to bite (doctor_rules, one function each)
"""
