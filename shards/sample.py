"""The images of one sample: read, looked at as closely as asked, repaired where they can be."""

import zlib
from typing import Literal, NamedTuple

from shards.archive import Archive, MemberError
from shards.imagery import Header, ImageError, Pixels, check, check_size, decode, read_header
from shards.index import CHANNELS, PARTS
from shards.members import Member
from shards.repair import encode_repaired, fit_as_is, repaired
from shards.task import ShardTask

Look = Literal["header", "codes", "pixels"]
"""How closely an image is looked at."""


class RejectedError(Exception):
    """Why a sample is left out, and the member to blame."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(reason)
        self.member = member


class Image(NamedTuple):
    """An image as it goes into the tar."""

    data: bytes
    header: Header
    pixels: Pixels | None
    """If it was looked at so closely."""
    crc: int
    is_repaired: bool = False


def read_sample(task: ShardTask, number: int, look: Look) -> list[Image]:
    """Composite, mask and depth map of one sample of a shard.

    Raises:
        RejectedError: One of them is not fit to train on.
    """
    images = []
    for part in range(len(PARTS)):
        archive = task.archives[task.samples.archives[number, part]]
        member = task.samples.member(number, part)
        try:
            images.append(image_of(task, part, archive.read(member), member.crc, look))
        except (MemberError, ImageError) as error:
            blamed = f"{archive.name}: {member.name}"
            raise RejectedError(blamed, f"{PARTS[part]} {error}") from None
    return images


def read_image(archive: Archive, member: Member, size: tuple[int, int]) -> Image:
    """Read and decode a colour image that keeps its bytes.

    Raises:
        MemberError, ImageError: It is not fit to train on.
    """
    data = archive.read(member)
    header = read_header(data)
    check_size(header, size)
    return image_as_is(data, header, 3, member.crc, "pixels")


def image_of(task: ShardTask, part: int, data: bytes, crc: int, look: Look) -> Image:
    """Check one image, and make a mask or depth map grey if it is not.

    Args:
        task: What the shard's images must be.
        part: Which of `PARTS`.
        data: The encoded image.
        crc: Its CRC-32; -1 unknown.
        look: How closely.

    Raises:
        ImageError: It is not fit to train on.
    """
    name = PARTS[part]
    header = read_header(data)
    if fit_as_is(name, header, task.depth):
        check_size(header, task.image_size)
        return image_as_is(data, header, CHANNELS[name], crc, look)
    pixels = repaired(name, data, header, task.depth, task.image_size)
    height, width, _ = pixels.shape
    new = encode_repaired(pixels)
    return Image(new, Header("png", height, width, 1), pixels, zlib.crc32(new), is_repaired=True)


def image_as_is(data: bytes, header: Header, channels: int, crc: int, look: Look) -> Image:
    """Check one image that keeps its bytes.

    Args:
        data: The encoded image.
        header: Its kind and size.
        channels: In how many it is wanted.
        crc: Its CRC-32; -1 unknown.
        look: How closely.

    Raises:
        ImageError: It is not fit to train on.
    """
    pixels = None
    if look == "pixels":
        pixels = decode(data, header, channels)
    elif look == "codes":
        check(data, header, channels)
    return Image(data, header, pixels, crc if crc >= 0 else zlib.crc32(data))
