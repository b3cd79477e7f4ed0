"""Using a trained model: what its logits on labelled images say, how far to trust them, when to answer "unsure"."""
