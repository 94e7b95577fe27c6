"""Raw loads from an array's address, for the loops that run once per byte.

Passing an array to a compiled function that is not inlined costs two atomic reference counts, and
indexing it a check for negative indices; with both the scanner takes twice as long. The caller
keeps the array alive and guarantees 0 <= index < len(data), with seven readable bytes after it
for `load64`.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def address(_context, array):
    """Address of the first element, int64."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), codegen


def _loader(bits, result):
    def load(_context, base, index):
        def codegen(_context, builder, _signature, arguments):
            pointer = builder.inttoptr(builder.add(*arguments), ir.IntType(bits).as_pointer())
            return builder.load(pointer, align=1)

        return result(types.int64, types.int64), codegen

    return load


load8 = intrinsic(_loader(8, types.uint8))
load64 = intrinsic(_loader(64, types.uint64))
