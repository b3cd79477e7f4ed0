"""From config, data and hardware to numbers.

resolve        the few facts about the data that a recipe depends on, and every setting left open filled in from them
recipe         what is trained: batch, steps, lr; the hardware has no say
phases         a run whose settings change
chain          the parts that a config has on, slot by slot
parallel_plan  how this machine carries it out: shares, micro-batches, precision
doctor         what is known to bite (doctor_rules, one function each)
"""
