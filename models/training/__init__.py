"""The run: a loader, a network and a loss in; a run folder with checkpoints and records out."""
