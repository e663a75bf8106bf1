"""What tells rows apart: a short hash of whatever decided their numbers."""

import hashlib
import json
from typing import Any

import numpy as np
import torch


def digest(value: Any) -> str:
    """Twelve hexadecimal digits for numbers, texts, tensors, and lists and dicts of these.

    Equal values have equal digests, in another process too. What is none of these (a function, say) goes by its
    `repr`, which may differ between processes.
    """
    text = json.dumps(value, sort_keys=True, default=_summary)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _summary(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = torch.as_tensor(value)
    if not isinstance(value, torch.Tensor):
        return repr(value)
    plain = value.detach().to("cpu", torch.float64 if value.is_floating_point() else torch.int64)
    return {"shape": list(plain.shape), "sha256": hashlib.sha256(plain.contiguous().numpy().tobytes()).hexdigest()}
