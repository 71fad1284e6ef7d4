"""What a reference says that is used as if it were a number."""

from typing import Any, NoReturn


class NotANumber:
    """Mixin of `Hyperparameter`: arithmetic and conversions raise a helpful error.

    A reference stands for a value that changes while a model is trained. A number
    computed from it once, when a layer is made, would never change again, so that it
    would be tuned without effect.
    """

    name: str

    def explain(self) -> str:
        """Say what a reference is, and what to use in its place."""
        return (
            f"Hyperparameter '{self.name}' is a reference and not a number. Give it "
            "as it is to what takes one: layers such as bilevel_tf.HyperDropout, "
            "regularizers such as bilevel_tf.L2 (Keras's own take numbers only), or an "
            "argument of your own made with bilevel_tf.Tunable. To compute with its "
            "value, do so where it is used, as in `call`: there "
            "bilevel_tf.hyperparameters.value_of(…) is the tensor in force. The "
            f"present number is space.values()['{self.name}']."
        )

    def __str__(self) -> str:
        # Keras shows what it cannot use in its errors.
        return f"<{self.explain()}>"

    def __format__(self, format_spec: str) -> str:
        if format_spec:
            self._refuse(f"format '{format_spec}'")
        return str(self)

    def _refuse(self, operation: str) -> NoReturn:
        raise TypeError(
            f"{self.explain()} Received: {operation} of hyperparameter '{self.name}'"
        )

    @property
    def dtype(self) -> NoReturn:
        """Asked for by operations of Keras on symbolic tensors."""
        self._refuse("the dtype")

    def __getitem__(self, index: Any) -> NoReturn:
        # Python also calls this to iterate.
        self._refuse("an entry")

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse("the NumPy array")

    def __tf_tensor__(self, dtype: Any = None, name: Any = None) -> NoReturn:
        self._refuse("the tensor")


def _make_refusal(name, operation):
    def refuse(self, *args, **kwargs):
        self._refuse(operation)

    refuse.__name__ = refuse.__qualname__ = name
    return refuse


_OPERATIONS = {
    "the sum": ("add", "radd", "iadd"),
    "the difference": ("sub", "rsub", "isub"),
    "the product": ("mul", "rmul", "imul", "matmul", "rmatmul"),
    "the quotient": ("truediv", "rtruediv", "itruediv", "floordiv", "rfloordiv"),
    "the remainder": ("mod", "rmod", "divmod", "rdivmod"),
    "a power": ("pow", "rpow"),
    "the negative": ("neg",),
    "the sign": ("pos",),
    "the absolute value": ("abs",),
    "a comparison": ("lt", "le", "gt", "ge"),
    "the float": ("float",),
    "the int": ("int", "index", "trunc", "floor", "ceil", "round"),
    "the complex number": ("complex",),
    "the truth value": ("bool",),
}
for _operation, _names in _OPERATIONS.items():
    for _name in _names:
        setattr(NotANumber, f"__{_name}__", _make_refusal(f"__{_name}__", _operation))
