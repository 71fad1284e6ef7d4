"""The numbers that a scale is given: as arrays, in a config, and in a dtype."""

import base64
import contextlib
import contextvars
import zlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from bilevel_tf._arguments import show

# Up to here a config has the entries of an array as a list, which one can read.
_READABLE = 64
_loading = contextvars.ContextVar("loading", default=False)


def to_array(value: ArrayLike, argument: str) -> np.ndarray:
    """Return a number or array-like as an array of double precision.

    Args:
        value: Numbers, or what `pack_array` made of them.
        argument: The name by which the error calls it.

    Raises:
        ValueError: If there is something else than numbers in it.
    """
    if isinstance(value, dict) and "shape" in value:
        return _unpack_array(value)
    try:
        array = np.asarray(value)
        # Strings would be read as numbers, and `True` as 1.
        if array.dtype.kind in "bOSUMmc":
            raise TypeError
        return array.astype("float64")
    except Exception:
        raise ValueError(
            f"`{argument}` must be a number, or an array or nested list of numbers. "
            f"Received: {argument}={show(value)}"
        ) from None


def pack_array(array: np.ndarray) -> float | list | dict[str, Any]:
    """Return an array in a form for a config: short if it is large.

    A large array of equal entries is one number and a shape. Any other large array is
    compressed, in single precision if that is exact. `to_array` is the inverse.
    """
    if array.size <= _READABLE:
        return array.tolist()
    shape, first = list(array.shape), array.ravel()[0]
    if np.all(array == first):
        return {"fill": float(first), "shape": shape}
    with np.errstate(over="ignore"):
        single = array.astype("<f4")
    exact = np.array_equal(single.astype("float64"), array)
    data = single if exact else array.astype("<f8")
    packed = base64.b64encode(zlib.compress(data.tobytes())).decode("ascii")
    return {"zlib": packed, "dtype": data.dtype.str, "shape": shape}


def _unpack_array(packed):
    shape = tuple(packed["shape"])
    if "fill" in packed:
        return np.full(shape, packed["fill"])
    data = zlib.decompress(base64.b64decode(packed["zlib"]))
    return np.frombuffer(data, packed["dtype"]).reshape(shape).astype("float64")


def held_dtype(dtype: str | None = None) -> str:
    """Return the dtype in which a space holds λ: never less than single precision.

    Args:
        dtype: Dtype of variables. Defaults to `None`: that of Keras's policy; but
            double precision while something is loaded, which was checked when it was
            made.
    """
    if dtype is None:
        if _loading.get():
            return "float64"
        dtype = keras.config.dtype_policy().variable_dtype
    return "float64" if dtype == "float64" else "float32"


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Make scales that were saved under another dtype policy."""
    token = _loading.set(True)
    try:
        yield
    finally:
        _loading.reset(token)


def check_magnitude(value: float | np.ndarray, argument: str, dtype: str) -> None:
    """Raise a `ValueError` if a number overflows or underflows in a dtype.

    Args:
        value: A finite number, or an array.
        argument: The name by which the error calls it.
        dtype: Name of the dtype in which λ is held.
    """
    limits, size = np.finfo(dtype), np.abs(np.asarray(value, "float64"))
    bad = (size > limits.max) | ((size > 0) & (size < limits.tiny))
    if np.any(bad):
        remedy = "; for others call keras.config.set_dtype_policy('float64') first"
        raise ValueError(
            f"`{argument}` must be 0 or from {limits.tiny:.2g} to {limits.max:.2g} in "
            f"size, the numbers of {dtype}, in which hyperparameters are held"
            f"{'' if dtype == 'float64' else remedy}. "
            f"Received: {argument}={show_bad(value, bad)}"
        )


def show_bad(value: float | np.ndarray, bad: np.ndarray | bool) -> str:
    """Show a number, or an array and the first of its entries that are bad."""
    shown = show(value)
    bad = np.asarray(bad)
    if np.ndim(value) == 0 or bad.shape != np.shape(value) or np.size(value) <= 6:
        return shown
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{shown}; entry {list(index)} is {np.asarray(value)[index]}"
