"""The gather as numba compiles it; importing this module compiles, which takes half a second.

The instructions that numpy has no name for are told to LLVM: `prefetch`, and a store of 64 bytes
that goes past the caches (vmovntps on x86, stnp on ARM).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_LINE = 64
"""Bytes of a cache line, and of a vector."""

_INT = ir.IntType(32)
_BYTE = ir.IntType(8).as_pointer()
_VECTOR = ir.VectorType(ir.IntType(8), _LINE).as_pointer()


@intrinsic
def _prefetch(_: Any, address: Any) -> Any:
    """Ask for a line, and do not wait; any address will do."""

    def emit(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_BYTE, _INT, _INT, _INT])
        function = builder.module.declare_intrinsic("llvm.prefetch", [_BYTE], kind)
        read_to_all_caches = [_INT(0), _INT(3), _INT(1)]
        builder.call(function, [builder.inttoptr(arguments[0], _BYTE), *read_to_all_caches])
        return context.get_dummy_value()

    return types.void(address), emit


@intrinsic
def _copy(_: Any, target: Any, source: Any) -> Any:
    """Copy a line."""

    def emit(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        _emit_copy(builder, *arguments, aligned=1)
        return context.get_dummy_value()

    return types.void(target, source), emit


@intrinsic
def _copy_past_caches(_: Any, target: Any, source: Any) -> Any:
    """Copy a line to memory; its address must be a multiple of its length."""

    def emit(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        store = _emit_copy(builder, *arguments, aligned=_LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([_INT(1)]))
        return context.get_dummy_value()

    return types.void(target, source), emit


def _emit_copy(builder: Any, target: Any, source: Any, *, aligned: int) -> Any:
    line = builder.load(builder.inttoptr(source, _VECTOR), align=1)
    return builder.store(line, builder.inttoptr(target, _VECTOR), align=aligned)


@intrinsic
def _fence(_: Any) -> Any:
    """Whoever sees what this thread does next sees its stores: those past caches keep no order."""

    def emit(context: Any, builder: Any, *_: Any) -> Any:
        # mfence or a locked instruction on x86, which both wait for such stores; no weaker order
        # is an instruction there
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit


@njit("void(uint8[:, ::1], int64[::1], uint8[:, ::1], boolean)", nogil=True)
def gather_rows(
    rows: npt.NDArray[np.uint8],
    numbers: npt.NDArray[np.int64],
    out: npt.NDArray[np.uint8],
    past_caches: bool,
) -> None:
    """Copy rows, and fetch the next while copying one.

    Args:
        rows: (M, L) bytes.
        numbers: (N,) rows, all of 0 to M - 1.
        out: (N, L) bytes, at any address.
        past_caches: Write to memory at once.
    """
    num, length = out.shape
    table, frame = np.intp(rows.ctypes.data), np.intp(out.ctypes.data)
    for i in range(num):
        source, target = table + numbers[i] * length, frame + i * length
        following = table + numbers[min(i + 1, num - 1)] * length
        begin = min(-target % _LINE, length)
        end = length - (length - begin) % _LINE
        for at in range(begin):
            out[i, at] = rows[numbers[i], at]
        for at in range(begin, end, _LINE):
            _prefetch(following + at)
            if past_caches:
                _copy_past_caches(target + at, source + at)
            else:
                _copy(target + at, source + at)
        for at in range(end, length):
            out[i, at] = rows[numbers[i], at]
    if past_caches:
        _fence()
