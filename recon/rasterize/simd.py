"""Eight float32 lanes as a numba type, so that kernels are SIMD by construction.

Numba's auto-vectoriser gives up silently and costs a factor of ten where it does. Here `Lanes` is
LLVM's ``<8 x float>`` and `Mask` its ``<8 x i1>``; LLVM maps both onto AVX-512, AVX2, SSE or NEON.
Arithmetic and comparisons work with the usual operators, also between lanes and scalars; no
fast-math flag is set, so NaN and infinity behave as IEEE 754 says and results are reproducible.

Numba's on-disk cache watches only the file that holds a kernel: after editing this one, remove the
``__pycache__`` folder beside it.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

WIDTH = 8
_F32 = ir.FloatType()
_I32 = ir.IntType(32)
_VECTOR = ir.VectorType(_F32, WIDTH)
_INT_VECTOR = ir.VectorType(_I32, WIDTH)
_MASK_VECTOR = ir.VectorType(ir.IntType(1), WIDTH)


class Lanes(types.Type):
    """Numba type of eight float32 values."""

    def __init__(self) -> None:
        super().__init__(name="f32x8")


class Mask(types.Type):
    """Numba type of eight booleans."""

    def __init__(self) -> None:
        super().__init__(name="i1x8")


lanes = Lanes()
mask = Mask()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: types.Type) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: types.Type) -> None:
        super().__init__(dmm, fe_type, _MASK_VECTOR)


def _broadcast(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    vector = ir.VectorType(scalar.type, WIDTH)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(single, single, ir.Constant(_INT_VECTOR, [0] * WIDTH))


def _as_vector(context: Any, builder: ir.IRBuilder, value: ir.Value, fe_type: types.Type) -> ir.Value:
    """The value as lanes; scalars are converted to float32 and broadcast."""
    if isinstance(fe_type, Lanes):
        return value
    return _broadcast(builder, context.cast(builder, value, fe_type, types.float32))


def _fill(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [ir.Constant(_F32, value)] * WIDTH)


def _call(builder: ir.IRBuilder, name: str, result: ir.Type, *args: ir.Value) -> ir.Value:
    function_type = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def _is_numeric(fe_type: types.Type) -> bool:
    return isinstance(fe_type, (Lanes, types.Float, types.Integer, types.IntegerLiteral))


def _register_binary(op: Any, build: Any, result: types.Type) -> None:
    class Template(AbstractTemplate):
        def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Any:
            if len(args) == 2 and any(isinstance(a, Lanes) for a in args) and all(map(_is_numeric, args)):
                return signature(result, *(a if isinstance(a, Lanes) else types.unliteral(a) for a in args))
            return None

    infer_global(op)(Template)

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        left, right = (_as_vector(context, builder, a, t) for a, t in zip(args, sig.args, strict=True))
        return build(builder, left, right)

    for left, right in [(Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)]:
        lower_builtin(op, left, right)(lower)


_register_binary(operator.add, lambda b, x, y: b.fadd(x, y), lanes)
_register_binary(operator.sub, lambda b, x, y: b.fsub(x, y), lanes)
_register_binary(operator.mul, lambda b, x, y: b.fmul(x, y), lanes)
_register_binary(operator.truediv, lambda b, x, y: b.fdiv(x, y), lanes)
for _op, _symbol in [(operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")]:
    _register_binary(_op, lambda b, x, y, s=_symbol: b.fcmp_ordered(s, x, y), mask)


def _register_mask(op: Any, build: Any) -> None:
    class Template(AbstractTemplate):
        def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Any:
            return signature(mask, mask, mask) if all(isinstance(a, Mask) for a in args) else None

    infer_global(op)(Template)
    lower_builtin(op, Mask, Mask)(lambda context, builder, sig, args: build(builder, *args))


_register_mask(operator.and_, lambda b, x, y: b.and_(x, y))
_register_mask(operator.or_, lambda b, x, y: b.or_(x, y))


def _elements(context: Any, builder: ir.IRBuilder, fe_type: types.Type, value: ir.Value, index: ir.Value) -> ir.Value:
    array = context.make_array(fe_type)(context, builder, value)
    return builder.gep(array.data, [index], inbounds=True)


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """``array[index : index + 8]`` of a contiguous 1-D float32 array; no bounds check."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointer = _elements(context, builder, sig.args[0], args[0], args[1])
        return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)

    return lanes(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index : index + 8] = value`` of a contiguous 1-D float32 array; no bounds check."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointer = _elements(context, builder, sig.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)
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
        result = ir.Constant(_VECTOR, ir.Undefined)
        for lane in range(WIDTH):
            index = builder.add(_clamped_index(builder, first, lane, stride, last), offset)
            element = builder.load(_elements(context, builder, sig.args[0], value, index), align=4)
            result = builder.insert_element(result, element, ir.Constant(_I32, lane))
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
            vector = builder.fptosi(vector, _INT_VECTOR)
        for lane in range(WIDTH):
            index = builder.add(_clamped_index(builder, first, lane, stride, last), offset)
            element = builder.extract_element(vector, ir.Constant(_I32, lane))
            builder.store(element, _elements(context, builder, sig.args[0], value, index), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp, types.intp, lanes), codegen


@intrinsic
def splat(typingctx: Any, value: Any) -> Any:
    """The scalar in every lane, as float32."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _broadcast(builder, args[0])

    return lanes(types.float32), codegen


@intrinsic
def iota(typingctx: Any) -> Any:
    """0, 1, ... 7."""
    return lanes(), lambda context, builder, sig, args: ir.Constant(
        _VECTOR, [ir.Constant(_F32, float(lane)) for lane in range(WIDTH)]
    )


@intrinsic
def fma(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, fused where the machine can; each of the three may be a scalar."""
    sig = lanes(*(a if isinstance(a, Lanes) else types.float32 for a in (x, y, z)))

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        vectors = [_as_vector(context, builder, a, t) for a, t in zip(args, sig.args, strict=True)]
        return _call(builder, f"llvm.fmuladd.v{WIDTH}f32", _VECTOR, *vectors)

    return sig, codegen


@intrinsic
def select(typingctx: Any, condition: Any, x: Any, y: Any) -> Any:
    """x where the mask is set, else y; each may be a scalar."""
    sig = lanes(mask, *(a if isinstance(a, Lanes) else types.float32 for a in (x, y)))

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        x, y = (_as_vector(context, builder, a, t) for a, t in zip(args[1:], sig.args[1:], strict=True))
        return builder.select(args[0], x, y)

    return sig, codegen


@intrinsic
def lane_sqrt(typingctx: Any, x: Any) -> Any:
    """Square root of every lane."""
    return lanes(lanes), lambda context, builder, sig, args: _call(builder, f"llvm.sqrt.v{WIDTH}f32", _VECTOR, args[0])


@intrinsic
def lane_ceil(typingctx: Any, x: Any) -> Any:
    """Smallest whole number not below every lane."""
    return lanes(lanes), lambda context, builder, sig, args: _call(builder, f"llvm.ceil.v{WIDTH}f32", _VECTOR, args[0])


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
            order = ir.Constant(_INT_VECTOR, [(lane + half) % WIDTH for lane in range(WIDTH)])
            total = builder.fadd(total, builder.shuffle_vector(total, total, order))
            half //= 2
        return builder.extract_element(total, ir.Constant(_I32, 0))

    return types.float32(lanes), codegen


@intrinsic
def lane_sums(typingctx: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """Lane l holds the sum of the l-th argument's lanes: three rounds of adding transposed halves."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        vectors, half = list(args), WIDTH // 2
        while half >= 1:
            low = [lane for lane in range(2 * WIDTH) if not lane & half]
            high = ir.Constant(_INT_VECTOR, [lane + half for lane in low])
            vectors = [
                builder.fadd(
                    builder.shuffle_vector(first, second, ir.Constant(_INT_VECTOR, low)),
                    builder.shuffle_vector(first, second, high),
                )
                for first, second in zip(vectors[: len(vectors) // 2], vectors[len(vectors) // 2 :], strict=True)
            ]
            half //= 2
        order = [int(f"{lane:03b}"[::-1], 2) for lane in range(WIDTH)]
        return builder.shuffle_vector(vectors[0], vectors[0], ir.Constant(_INT_VECTOR, order))

    return lanes(*[lanes] * WIDTH), codegen


_EXP2 = (0.69314698, 0.24022242, 0.05550734, 0.00967151, 0.00132647)


@intrinsic
def exp2(typingctx: Any, x: Any) -> Any:
    """2**x to 1e-7 relative for x in (-126, 127); outside, the result is meaningless but no trap.

    x = n + f with f in [-1/2, 1/2]; 2**f by a degree 5 minimax polynomial, 2**n by the exponent bits.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        magic = _fill(1.5 * 2**23)
        shifted = builder.fadd(args[0], magic)
        fraction = builder.fsub(args[0], builder.fsub(shifted, magic))
        power = _fill(_EXP2[-1])
        for coefficient in (*_EXP2[-2::-1], 1.0):
            power = _call(builder, f"llvm.fmuladd.v{WIDTH}f32", _VECTOR, power, fraction, _fill(coefficient))
        whole = builder.shl(builder.bitcast(shifted, _INT_VECTOR), ir.Constant(_INT_VECTOR, [23] * WIDTH))
        return builder.bitcast(builder.add(builder.bitcast(power, _INT_VECTOR), whole), _VECTOR)

    return lanes(lanes), codegen
