"""Make eight float32 lanes a numba type, so that kernels are SIMD by construction: `Lanes`.

Numba's auto-vectoriser gives up silently and costs a factor of ten where it does. Here `Lanes` is
LLVM's ``<8 x float>`` and `Mask` its ``<8 x i1>``; LLVM maps both onto AVX-512, AVX2, SSE or NEON.
Arithmetic and comparisons work with the usual operators, also between lanes and scalars; no
fast-math flag is set, so NaN and infinity behave as IEEE 754 says and results are reproducible.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, register_model

WIDTH = 8
F32 = ir.FloatType()
I32 = ir.IntType(32)
VECTOR = ir.VectorType(F32, WIDTH)
INT_VECTOR = ir.VectorType(I32, WIDTH)
MASK_VECTOR = ir.VectorType(ir.IntType(1), WIDTH)


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
        super().__init__(dmm, fe_type, VECTOR)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: types.Type) -> None:
        super().__init__(dmm, fe_type, MASK_VECTOR)


def broadcast(builder: ir.IRBuilder, scalar: Any) -> ir.Value:
    """A vector whose every lane is the scalar."""
    vector = ir.VectorType(scalar.type, WIDTH)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(single, single, ir.Constant(INT_VECTOR, [0] * WIDTH))


def as_vector(context: Any, builder: ir.IRBuilder, value: ir.Value, fe_type: types.Type) -> ir.Value:
    """The value as lanes; scalars are converted to float32 and broadcast."""
    if isinstance(fe_type, Lanes):
        return value
    return broadcast(builder, context.cast(builder, value, fe_type, types.float32))


def fill(value: float) -> ir.Constant:
    """A constant vector whose every lane is `value`."""
    return ir.Constant(VECTOR, [ir.Constant(F32, value)] * WIDTH)


def call(builder: ir.IRBuilder, name: str, result: ir.Type, *args: Any) -> ir.Value:
    """A call of the LLVM intrinsic or function `name`, declared in the module if it is not yet."""
    function_type = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def _is_numeric(fe_type: types.Type) -> bool:
    return isinstance(fe_type, (Lanes, types.Float, types.Integer, types.IntegerLiteral))


def _infer(op: Any, template: type[AbstractTemplate]) -> None:
    register: Any = infer_global(op)
    register(template)


def _register_binary(op: Any, build: Any, result: types.Type) -> None:
    class Template(AbstractTemplate):
        def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Any:
            if len(args) == 2 and any(isinstance(a, Lanes) for a in args) and all(map(_is_numeric, args)):
                return signature(result, *(a if isinstance(a, Lanes) else types.unliteral(a) for a in args))
            return None

    _infer(op, Template)

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple[ir.Value, ...]) -> ir.Value:
        left, right = (as_vector(context, builder, a, t) for a, t in zip(args, sig.args, strict=True))
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

    _infer(op, Template)
    lower_builtin(op, Mask, Mask)(lambda context, builder, sig, args: build(builder, *args))


_register_mask(operator.and_, lambda b, x, y: b.and_(x, y))
_register_mask(operator.or_, lambda b, x, y: b.or_(x, y))
