"""What a user of the shard package can cause and repair."""


class ShardError(Exception):
    """A source or a shard set cannot be used as it is.

    The message names the thing, says what was found, and ends with the next action.
    """
