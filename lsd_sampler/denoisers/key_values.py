"""Keys and values that attention kept from earlier calls (the caches of Fast-dLLM).

Shape suffixes: B batch, H heads, L positions, W positions that a call computes, D width of a head.
"""

import torch


class KeyValueCache:
    """Keys and values of all positions of a canvas, for each layer, in place of transformers' own caches.

    The first call computes all positions. Later calls compute a window of positions, whose keys and values replace
    those kept before, and attend to all: the others are as old as the last call that computed them. Fast-dLLM
    (https://huggingface.co/papers/2505.22618) takes the window from the block to the end of the canvas (its prefix
    cache) or the block alone (its dual cache).

    Attributes:
        window (`tuple[int, int]`, *optional*): the positions of the canvas that the next call computes, from and up
            to; None: all.
        rows (`torch.LongTensor` of shape `(R,)`, *optional*): the sequences that the next call is about; None: all.
    """

    is_compileable = False

    def __init__(self) -> None:
        self.window: tuple[int, int] | None = None
        self.rows: torch.Tensor | None = None
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._length, self._at = 0, slice(0, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(kept.nbytes for pair in self._layers.values() for kept in pair)

    def begin(self, length: int, before: int, after: int) -> slice:
        """Begins a call; returns the positions of the network's input that it computes.

        Args:
            length (`int`): of the network's input: canvas, and what stands around it.
            before, after (`int`): tokens before and after the canvas.
        """
        self._length, self._at = length, slice(0, length)
        if self.window is not None:
            start, stop = (i + before for i in self.window)
            self._at = slice(start, length if stop == length - after else stop)
        return self._at

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keeps the keys and values of a call, `(B, H, W, D)`, and returns those of all positions, `(B, H, L, D)`."""
        if self.window is None:
            self._layers[layer_idx] = key_states, value_states
            return key_states, value_states
        kept = self._layers[layer_idx]
        for old, new in zip(kept, (key_states, value_states), strict=True):
            if self.rows is None:
                old[:, :, self._at] = new
            else:
                old[self.rows, :, self._at] = new
        keys, values = kept if self.rows is None else (x[self.rows] for x in kept)
        return keys, values

    # what transformers asks of a cache to make attention masks

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._at.start

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self._at.start

    def get_mask_sizes(self, query_length: object, layer_idx: int = 0) -> tuple[int, int]:
        return self._length, 0
