"""What is done with a trained model: evaluate it on labelled images, predict for others."""
