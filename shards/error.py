"""What a user of the shard package can cause and repair."""


class ShardError(Exception):
    """A source or a shard set cannot be used as it is.

    The message names the thing, says what was found, and ends with the next action. It is one line
    that steers no terminal, whatever an archive calls its members.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if text.isprintable():
            return text
        return "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
        )
