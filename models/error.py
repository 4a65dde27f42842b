"""How training and checkpoints fail, and how a run ends early. Needs no torch.

CheckpointError   a checkpoint cannot be used as asked   one line, exit status 2
  DamagedError    ... since its bytes are not whole      --resume uses the one before it
TrainingError     a run cannot start or go on            one line, exit status 2
Interrupted       Ctrl-C or SIGTERM, after saving        one line, exit status 130
TimeIsUp          the time limit, after saving           one line, exit status 0
"""


class CheckpointError(Exception):
    """A checkpoint cannot be used as asked.

    The message names the file, says what was found, and ends with the next action.
    """


class DamagedError(CheckpointError):
    """A file is no whole checkpoint of ours; another of its run may be."""


class TrainingError(Exception):
    """A run cannot start or go on.

    The message names the thing, says what was found, and ends with the next action.
    """


class Interrupted(Exception):  # noqa: N818 - not an error: the run was saved and can go on
    """The run was asked to stop, and saved itself first; the message says where."""


class TimeIsUp(Exception):  # noqa: N818 - not an error: it is what --time-limit asks for
    """The run came to its time limit, and saved itself first; the message says where."""
