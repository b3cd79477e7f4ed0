"""Plain PyTorch training, with or without torch.distributed, never with Ray.

loop         the epochs: order, step, evaluation, checkpoint, as a generator
step         forward, backward and update of one optimizer step, through the slots of the parts
loss         what a step minimises, an image at a time
state        model, optimizer, loss scaler, what the parts carry
step_log     metrics kept on the device and fetched now and then
evaluation   exact counts over all workers
checkpoint   atomic, verified, resumable; restoring: with other hardware settings
model_file   the finished model
run_directory, records   what a run leaves on disk
"""
