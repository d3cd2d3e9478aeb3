"""What scoring asks of a model: that it runs. Who opens it, and with what, is ``adapters``' business."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]


class Model(Protocol):
    """A model that is ready to answer."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The named output tensors, in that order, for one batch of N rows.

        ``feeds`` maps every input to an array of ``[N]`` or ``[N, k]``; strings are object arrays of
        ``str``. N is a multiple of 64 (see ``scoring.arrays``) wherever the outputs count. It raises
        where the graph fails on these rows, and may be called again with any number of them, only to
        learn whether it does.
        """
        ...
