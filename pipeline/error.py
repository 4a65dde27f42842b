"""What a user of the loader can cause and repair."""


class LoaderError(Exception):
    """A shard set cannot be streamed as asked.

    The message names the thing, says what was found, and ends with the next action.
    """
