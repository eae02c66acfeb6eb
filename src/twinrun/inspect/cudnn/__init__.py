"""What cuDNN would do with the convolutions of a training step: asked of it, with or without the card."""
