"""Depth that was saved as a colour-mapped picture, turned back into grey.

The luma of plasma and of magma rises along the map, and luma is what a JPEG keeps at full
resolution, so the grey decode of the picture tells the place in the map: edges stay where they
are, and a table of 256 entries does it.

A matplotlib figure also has a white frame, and shows the map at about 0.8 of the size. Figures of
one data set have one frame; `find_frame` measures it on several.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

_LUMA = np.array([0.299, 0.587, 0.114])  # as JPEG and Pillow weigh RGB
_WHITE = 255.0


class Frame(NamedTuple):
    """Where the map lies in a figure, in pixels: the first inside and the first outside."""

    left: int
    top: int
    right: int
    bottom: int


def invert(luma_HW: Pixels, name: str) -> Pixels:
    """Grey levels (0 is the map's dark end) from the luma of a colour-mapped picture.

    Args:
        luma_HW: The picture decoded as grey.
        name: plasma or magma.
    """
    return _TABLES[name][luma_HW]


def find_frame(colours_HW3: Sequence[Pixels]) -> Frame | None:
    """The white frame that several figures of one size have in common; None if there is none.

    The darkest channel tells white from every colour of the map. An edge lies where its mean over
    the figures crosses half of the step from white to what is inside.
    """
    darkest = np.mean([figure.min(axis=2) for figure in colours_HW3], axis=0)
    height, width = darkest.shape
    middle = darkest[height // 4 : -height // 4, width // 4 : -width // 4]
    if middle.mean() > _WHITE * 0.8:
        return None
    rows = _inside(darkest[:, width // 4 : -width // 4].mean(axis=1))
    columns = _inside(darkest[height // 4 : -height // 4].mean(axis=0))
    frame = Frame(columns[0], rows[0], columns[1], rows[1])
    return None if frame == (0, 0, width, height) else frame


def _inside(profile: npt.NDArray[np.floating]) -> tuple[int, int]:
    """First position inside a white border, and the first one after."""
    inner = np.flatnonzero(profile < _WHITE * 0.9)
    first, last = int(inner[0]), int(inner[-1])
    # the crossing is judged against the level a few pixels inside: colours near an edge differ
    edge_first = (_WHITE + profile[min(first + 6, last)]) / 2
    edge_last = (_WHITE + profile[max(last - 6, first)]) / 2
    inner_first = np.flatnonzero(profile < edge_first)
    inner_last = np.flatnonzero(profile < edge_last)
    return int(inner_first[0]), int(inner_last[-1]) + 1


def cut_out(grey_HW: Pixels, frame: Frame, size: tuple[int, int]) -> Pixels:
    """The map inside the frame, resampled to the composite's pixels.

    Args:
        grey_HW: The figure as grey levels of the map.
        frame: Where the map lies.
        size: Height and width of the composite.
    """
    box = (frame.left, frame.top, frame.right, frame.bottom)
    image = Image.fromarray(grey_HW)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC, box=box))


def _table(colours: str) -> Pixels:
    """Luma to position: the map read backwards, with gaps filled by the nearest."""
    map_256x3 = np.frombuffer(bytes.fromhex(colours), np.uint8).reshape(256, 3)
    luma = np.maximum.accumulate(map_256x3 @ _LUMA)
    return np.interp(np.arange(256), luma, np.arange(256)).round().astype(np.uint8)


# The maps by Nathaniel J. Smith and Stefan van der Walt (matplotlib, CC0), 256 RGB triples each.
PLASMA = (
    "0c078610078713068915068a18068b1b068c1d068d1f058e21058f2305902505912705922905932b05942d0494"
    "2f04953104963304973404983604983804993a049a3b039a3d039b3f039c40039c42039d44039e45039e47029f"
    "49029f4a02a04c02a14e02a14f02a25101a25201a35401a35601a35701a45901a45a00a55c00a55e00a55f00a6"
    "6100a66200a66400a76500a76700a76800a76a00a76c00a86d00a86f00a87000a87200a87300a87500a87601a8"
    "7801a87901a87b02a87c02a77e03a77f03a78104a78204a78405a68506a68607a68807a58908a58b09a48c0aa4"
    "8e0ca48f0da3900ea3920fa29310a19511a19612a09713a099149f9a159e9b179e9d189d9e199c9f1a9ba01b9b"
    "a21c9aa31d99a41e98a51f97a72197a82296a92395aa2494ac2593ad2692ae2791af2890b02a8fb12b8fb22c8e"
    "b42d8db52e8cb62f8bb7308ab83289b93388ba3487bb3586bc3685bd3784be3883bf3982c03b81c13c80c23d80"
    "c33e7fc43f7ec5407dc6417cc7427bc8447ac94579ca4678cb4777cc4876cd4975ce4a75cf4b74d04d73d14e72"
    "d14f71d25070d3516fd4526ed5536dd6556dd7566cd7576bd8586ad95969da5a68db5b67dc5d66dc5e66dd5f65"
    "de6064df6163df6262e06461e16560e26660e3675fe3685ee46a5de56b5ce56c5be66d5ae76e5ae87059e87158"
    "e97257ea7356ea7455eb7654ec7754ec7853ed7952ed7b51ee7c50ef7d4fef7e4ef0804df0814df1824cf2844b"
    "f2854af38649f38748f48947f48a47f58b46f58d45f68e44f68f43f69142f79241f79341f89540f8963ff8983e"
    "f9993df99a3cfa9c3bfa9d3afa9f3afaa039fba238fba337fba436fca635fca735fca934fcaa33fcac32fcad31"
    "fdaf31fdb030fdb22ffdb32efdb52dfdb62dfdb82cfdb92bfdbb2bfdbc2afdbe29fdc029fdc128fdc328fdc427"
    "fdc626fcc726fcc926fccb25fccc25fcce25fbd024fbd124fbd324fad524fad624fad824f9d924f9db24f8dd24"
    "f8df24f7e024f7e225f6e425f6e525f5e726f5e926f4ea26f3ec26f3ee26f2f026f2f126f1f326f0f525f0f623"
    "eff821"
)
MAGMA = (
    "00000300000400000601000701010901010b02020d02020f03031104031304041505041706051907051b08061d"
    "09071f0a07220b08240c09260d0a280e0a2a0f0b2c100c2f110c31120d33140d35150e38160e3a170f3c180f3f"
    "1a10411b10441c10461e10491f114b20114d2211502311522511552611572811592a115c2b115e2d10602f1062"
    "301065321067341068350f6a370f6c390f6e3b0f6f3c0f713e0f72400f73420f74430f75450f76470f77481078"
    "4a10794b10794d117a4f117b50127b52127c53137c55137d57147d58157e5a157e5b167e5d177e5e177f60187f"
    "61187f63197f651a80661a80681b80691c806b1c806c1d806e1e816f1e81711f81731f81742081762181772181"
    "7922817a22817c23817e24817f24818125818225818426818526818727818928818a28818c29808d29808f2a80"
    "912a80922b80942b80952c80972c7f992d7f9a2d7f9c2e7f9e2e7e9f2f7ea12f7ea3307ea4307da6317da7317d"
    "a9327cab337cac337bae347bb0347bb1357ab3357ab53679b63679b83778b93778bb3877bd3977be3976c03a75"
    "c23a75c33b74c53c74c63c73c83d72ca3e72cb3e71cd3f70ce4070d0416fd1426ed3426dd4436dd6446cd7456b"
    "d9466ada4769dc4869dd4968de4a67e04b66e14c66e24d65e44e64e55063e65162e75262e85461ea5560eb5660"
    "ec585fed595fee5b5eee5d5def5e5df0605df1615cf2635cf3655cf3675bf4685bf56a5bf56c5bf66e5bf6705b"
    "f7715bf7735cf8755cf8775cf9795cf97b5df97d5dfa7f5efa805efa825ffb8460fb8660fb8861fb8a62fc8c63"
    "fc8e63fc9064fc9265fc9366fd9567fd9768fd9969fd9b6afd9d6bfd9f6cfda16efda26ffda470fea671fea873"
    "feaa74feac75feae76feaf78feb179feb37bfeb57cfeb77dfeb97ffebb80febc82febe83fec085fec286fec488"
    "fec689fec78bfec98dfecb8efdcd90fdcf92fdd193fdd295fdd497fdd698fdd89afdda9cfddc9dfddd9ffddfa1"
    "fde1a3fce3a5fce5a6fce6a8fce8aafceaacfcecaefceeb0fcf0b1fcf1b3fcf3b5fcf5b7fbf7b9fbf9bbfbfabd"
    "fbfcbf"
)

_TABLES = {"plasma": _table(PLASMA), "magma": _table(MAGMA)}
