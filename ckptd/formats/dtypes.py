"""TensorFlow's data types: their numbers, names and sizes. Without numpy, which the daemon spares.

`ckptd.formats.arrays` says which numpy dtype stands for each.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class DataType:
    """One value of the enum ``tensorflow.DataType``."""

    number: int
    name: str
    """As `tf.dtypes.DType.name` has it: ``float32``, ``bfloat16``, ``string``."""
    itemsize: int | None
    """Bytes of one element as a checkpoint stores it; None where elements differ, or none are."""

    @property
    def enum_name(self) -> str:
        """The name in a graph's text form.

        >>> FLOAT32.enum_name
        'DT_FLOAT'
        """
        if self.number not in BY_NUMBER:
            return self.name
        return _ENUM_NAMES.get(self.number, f"DT_{self.name.upper()}")


_ENUM_NAMES: Final = {1: "DT_FLOAT", 2: "DT_DOUBLE", 19: "DT_HALF"}

MOST_DIMENSIONS: Final = 254
"""What `TensorShape` takes. To multiply many more than these takes hours, so they are counted first."""

MOST_ELEMENTS: Final = 2**63 - 1
"""What TensorFlow counts a tensor's elements in; Python writes out no number of a thousand digits."""

FLOAT32: Final = DataType(1, "float32", 4)
STRING: Final = DataType(7, "string", None)
VARIANT: Final = DataType(21, "variant", None)
RESOURCE: Final = DataType(20, "resource", None)

_ALL: Final = (
    FLOAT32,
    DataType(2, "float64", 8),
    DataType(3, "int32", 4),
    DataType(4, "uint8", 1),
    DataType(5, "int16", 2),
    DataType(6, "int8", 1),
    STRING,
    DataType(8, "complex64", 8),
    DataType(9, "int64", 8),
    DataType(10, "bool", 1),
    DataType(11, "qint8", 1),
    DataType(12, "quint8", 1),
    DataType(13, "qint32", 4),
    DataType(14, "bfloat16", 2),
    DataType(15, "qint16", 2),
    DataType(16, "quint16", 2),
    DataType(17, "uint16", 2),
    DataType(18, "complex128", 16),
    DataType(19, "float16", 2),
    RESOURCE,
    VARIANT,
    DataType(22, "uint32", 4),
    DataType(23, "uint64", 8),
    DataType(24, "float8_e5m2", 1),
    DataType(25, "float8_e4m3fn", 1),
    DataType(26, "float8_e4m3fnuz", 1),
    DataType(27, "float8_e4m3b11fnuz", 1),
    DataType(28, "float8_e5m2fnuz", 1),
    DataType(29, "int4", 1),
    DataType(30, "uint4", 1),
    DataType(31, "int2", 1),
    DataType(32, "uint2", 1),
    DataType(33, "float4_e2m1fn", 1),
)

BY_NUMBER: Final = {data_type.number: data_type for data_type in _ALL}
BY_NAME: Final = {data_type.name: data_type for data_type in _ALL}

_REFERENCE: Final = 100
"""A graph adds this to the number where an operation hands out the variable, not its value."""


def data_type(number: int) -> DataType:
    """Return the data type of that number, also one that this version does not know.

    >>> data_type(14).name, data_type(1000)
    ('bfloat16', DataType(number=1000, name='data type 1000', itemsize=None))
    """
    known = BY_NUMBER.get(number)
    return known if known is not None else DataType(number, f"data type {number}", None)


def base_number(number: int) -> int:
    """Return the number of the value that a reference (`DT_FLOAT_REF`) refers to.

    >>> base_number(101), base_number(1)
    (1, 1)
    """
    return number - _REFERENCE if number > _REFERENCE else number
