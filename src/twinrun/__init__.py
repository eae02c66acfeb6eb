"""twinrun: train identical twins of an image classifier and say which differences are noise."""

__version__ = "0.1.0"
