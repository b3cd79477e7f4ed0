"""The bag of tricks: one file each, pure functions of numbers, tensors and modules.

trick                       file                       paper
linear scaling of the lr    linear_scaling.py          3.1
gradual warmup              warmup.py                  3.1
cosine and step decay       decay.py                   5.1
the whole lr schedule       schedule.py                3.1, 5.1
zero gamma                  zero_gamma.py              3.1
no bias decay               no_bias_decay.py           3.1
mixed precision             mixed_precision.py         3.2
label smoothing             label_smoothing.py         5.2
mixup                       mixup.py                   5.4
gradient clipping           gradient_clipping.py       not in the paper
averaged BN statistics      batch_norm_averaging.py    not in the paper
(the ResNet variants, section 4, are raytricks/models/resnet.py)
"""
