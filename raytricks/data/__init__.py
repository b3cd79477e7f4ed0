"""Image data: from files and arrays to augmented batches on a device.

splits, sources/, loading   what there is, found without decoding
decode, image_formats, jpeg, store, prepared   uint8 pixels, in memory where they fit
order, randomness            which sample when, and its random numbers
resample, augmentation       a batch at a time
batches                      what a worker trains and evaluates on
"""
