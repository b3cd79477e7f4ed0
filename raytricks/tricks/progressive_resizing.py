"""Progressive resizing: training images start small and grow, so that the first epochs cost less."""

LARGE_STEP, SMALL_STEP = 32, 4
_LARGE_SIDE = 128


def training_side(epoch: int, *, num_epochs: int, first: int, last: int, ramp: tuple[float, float]) -> int:
    """Return the side of an epoch's training images, pixels.

    Args:
        epoch: counted from 0.
        num_epochs: of the whole run, >= 1.
        first, last: sides before and after the ramp, first <= last.
        ramp: parts of the run, 0 <= ramp[0] <= ramp[1] <= 1, between which the side rises linearly, in
            steps of 32 pixels (4 where `last` is below 128).

    Raises:
        ValueError: an argument is out of range.

    Source: Howard, fast.ai's DAWNBench entry, 2018; the linear ramp is that of ffcv's ImageNet recipes. Not in the
    paper.
    """
    if not 0 <= epoch < num_epochs:
        raise ValueError(f"epoch must be in [0, {num_epochs}), got {epoch}")
    if not 0 < first <= last:
        raise ValueError(f"first must be in [1, last], got first {first}, last {last}")
    if not 0 <= ramp[0] <= ramp[1] <= 1:
        raise ValueError(f"ramp must be two parts of the run, rising in [0, 1], got {list(ramp)}")
    start, end = ramp[0] * num_epochs, ramp[1] * num_epochs
    if epoch >= end:
        return last
    if epoch <= start:
        return first
    step = LARGE_STEP if last >= _LARGE_SIDE else SMALL_STEP
    risen = (last - first) * (epoch - start) / (end - start)
    return min(last, first + step * round(risen / step))
