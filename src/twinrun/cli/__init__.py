"""The command line: one file a topic, and only wiring."""

from twinrun.cli.app import main

__all__ = ["main"]
