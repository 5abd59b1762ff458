"""Give kernels memory, selection, sums and roots of `recon.rasterize.lanes`: `load`, `store`, `select`, `fma`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types

from recon.rasterize.lanes import (
    F32,
    I32,
    INT_VECTOR,
    VECTOR,
    WIDTH,
    Lanes,
    as_vector,
    broadcast,
    call,
    fill,
    lanes,
    mask,
)


def intrinsic(build: Callable[..., Any]) -> Any:
    """numba.extending.intrinsic, untyped: a call lacks the typing context that the definition takes."""
    return extending.intrinsic(build)


def _elements(context: Any, builder: ir.IRBuilder, fe_type: types.Type, value: ir.Value, index: ir.Value) -> ir.Value:
    array = context.make_array(fe_type)(context, builder, value)
    return builder.gep(array.data, [index], inbounds=True)


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """``array[index : index + 8]`` of a contiguous 1-D float32 array; no bounds check."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointer = _elements(context, builder, sig.args[0], args[0], args[1])
        return builder.load(builder.bitcast(pointer, VECTOR.as_pointer()), align=4)

    return lanes(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index : index + 8] = value`` of a contiguous 1-D float32 array; no bounds check."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointer = _elements(context, builder, sig.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), codegen


def _clamped_index(builder: ir.IRBuilder, first: ir.Value, lane: int, stride: ir.Value, last: ir.Value) -> ir.Value:
    index = builder.add(first, ir.Constant(first.type, lane))
    index = builder.select(builder.icmp_signed("<", index, last), index, last)
    return builder.mul(index, stride)


@intrinsic
def gather(typingctx: Any, array: Any, first: Any, last: Any, stride: Any, offset: Any) -> Any:
    """Lane l holds ``array[min(first + l, last) * stride + offset]`` of a 1-D float32 array."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        value, first, last, stride, offset = args
        result = ir.Constant(VECTOR, ir.Undefined)
        for lane in range(WIDTH):
            index = builder.add(_clamped_index(builder, first, lane, stride, last), offset)
            element = builder.load(_elements(context, builder, sig.args[0], value, index), align=4)
            result = builder.insert_element(result, element, ir.Constant(I32, lane))
        return result

    return lanes(array, types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def scatter(typingctx: Any, array: Any, first: Any, last: Any, stride: Any, offset: Any, values: Any) -> Any:
    """``array[min(first + l, last) * stride + offset] = values[l]``, lane after lane.

    Lanes beyond `last` overwrite it, so they must hold its value, as they do after a `gather`.
    Float32 and int32 arrays; values are rounded towards zero for the latter.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        value, first, last, stride, offset, vector = args
        if sig.args[0].dtype == types.int32:
            vector = builder.fptosi(vector, INT_VECTOR)
        for lane in range(WIDTH):
            index = builder.add(_clamped_index(builder, first, lane, stride, last), offset)
            element = builder.extract_element(vector, ir.Constant(I32, lane))
            builder.store(element, _elements(context, builder, sig.args[0], value, index), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp, types.intp, lanes), codegen


@intrinsic
def splat(typingctx: Any, value: Any) -> Any:
    """The scalar in every lane, as float32."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return broadcast(builder, args[0])

    return lanes(types.float32), codegen


@intrinsic
def iota(typingctx: Any) -> Any:
    """0, 1, ... 7."""
    return lanes(), lambda context, builder, sig, args: ir.Constant(
        VECTOR, [ir.Constant(F32, float(lane)) for lane in range(WIDTH)]
    )


@intrinsic
def fma(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, fused where the machine can; each of the three may be a scalar."""
    sig = lanes(*(a if isinstance(a, Lanes) else types.float32 for a in (x, y, z)))

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        vectors = [as_vector(context, builder, a, t) for a, t in zip(args, sig.args, strict=True)]
        return call(builder, f"llvm.fmuladd.v{WIDTH}f32", VECTOR, *vectors)

    return sig, codegen


@intrinsic
def select(typingctx: Any, condition: Any, x: Any, y: Any) -> Any:
    """x where the mask is set, else y; each may be a scalar."""
    sig = lanes(mask, *(a if isinstance(a, Lanes) else types.float32 for a in (x, y)))

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        x, y = (as_vector(context, builder, a, t) for a, t in zip(args[1:], sig.args[1:], strict=True))
        return builder.select(args[0], x, y)

    return sig, codegen


@intrinsic
def lane_sqrt(typingctx: Any, x: Any) -> Any:
    """Square root of every lane."""
    return lanes(lanes), lambda context, builder, sig, args: call(builder, f"llvm.sqrt.v{WIDTH}f32", VECTOR, args[0])


@intrinsic
def lane_ceil(typingctx: Any, x: Any) -> Any:
    """Smallest whole number not below every lane."""
    return lanes(lanes), lambda context, builder, sig, args: call(builder, f"llvm.ceil.v{WIDTH}f32", VECTOR, args[0])


@intrinsic
def any_lane(typingctx: Any, condition: Any) -> Any:
    """Whether the mask is set in any lane."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        bits = builder.bitcast(args[0], ir.IntType(WIDTH))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(mask), codegen


@intrinsic
def lane_sum(typingctx: Any, x: Any) -> Any:
    """Sum of the lanes in a fixed order (pairwise halves)."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        total, half = args[0], WIDTH // 2
        while half >= 1:
            order = ir.Constant(INT_VECTOR, [(lane + half) % WIDTH for lane in range(WIDTH)])
            total = builder.fadd(total, builder.shuffle_vector(total, total, order))
            half //= 2
        return builder.extract_element(total, ir.Constant(I32, 0))

    return types.float32(lanes), codegen


@intrinsic
def lane_max(typingctx: Any, x: Any) -> Any:
    """The largest lane."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        total, half = args[0], WIDTH // 2
        while half >= 1:
            order = ir.Constant(INT_VECTOR, [(lane + half) % WIDTH for lane in range(WIDTH)])
            other = builder.shuffle_vector(total, total, order)
            total = builder.select(builder.fcmp_ordered(">", other, total), other, total)
            half //= 2
        return builder.extract_element(total, ir.Constant(I32, 0))

    return types.float32(lanes), codegen


@intrinsic
def lane_sums(typingctx: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """Lane l holds the sum of the l-th argument's lanes: three rounds of adding transposed halves."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        vectors, half = list(args), WIDTH // 2
        while half >= 1:
            low = [lane for lane in range(2 * WIDTH) if not lane & half]
            high = ir.Constant(INT_VECTOR, [lane + half for lane in low])
            vectors = [
                builder.fadd(
                    builder.shuffle_vector(first, second, ir.Constant(INT_VECTOR, low)),
                    builder.shuffle_vector(first, second, high),
                )
                for first, second in zip(vectors[: len(vectors) // 2], vectors[len(vectors) // 2 :], strict=True)
            ]
            half //= 2
        order = [int(f"{lane:03b}"[::-1], 2) for lane in range(WIDTH)]
        return builder.shuffle_vector(vectors[0], vectors[0], ir.Constant(INT_VECTOR, order))

    return lanes(*[lanes] * WIDTH), codegen


_EXP2 = (0.69314698, 0.24022242, 0.05550734, 0.00967151, 0.00132647)


@intrinsic
def exp2(typingctx: Any, x: Any) -> Any:
    """2**x to 1e-7 relative for x in (-126, 127); outside, the result is meaningless but no trap.

    x = n + f with f in [-1/2, 1/2]; 2**f by a degree 5 minimax polynomial, 2**n by the exponent bits.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        magic = fill(1.5 * 2**23)
        shifted = builder.fadd(args[0], magic)
        fraction = builder.fsub(args[0], builder.fsub(shifted, magic))
        power = fill(_EXP2[-1])
        for coefficient in (*_EXP2[-2::-1], 1.0):
            power = call(builder, f"llvm.fmuladd.v{WIDTH}f32", VECTOR, power, fraction, fill(coefficient))
        whole = builder.shl(builder.bitcast(shifted, INT_VECTOR), ir.Constant(INT_VECTOR, [23] * WIDTH))
        return builder.bitcast(builder.add(builder.bitcast(power, INT_VECTOR), whole), VECTOR)

    return lanes(lanes), codegen
