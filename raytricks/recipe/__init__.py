"""From config, data and hardware to numbers.

dataset_stats  the few facts about the data that a recipe depends on
resolve        fills in every setting left open, from the data
recipe         what is trained: batch, steps, lr; the hardware has no say
phases         a run whose settings change
chain          the parts that a config has on, slot by slot
parallel_plan  how this machine carries it out: shares, micro-batches, precision
image_sizes    the side of the images in every epoch
preset         the default recipe for a folder without a config file
doctor         what is known to bite (doctor_rules, one function each)
"""
