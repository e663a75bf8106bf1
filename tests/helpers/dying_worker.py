"""`lsd-sample` whose second process is killed when it is about to draw its third share."""

import os
import signal
from typing import Any

from lsd_sampler.cli import sample


def main(argv: list[str]) -> None:
    drawn, call = [], sample.call

    def dies(args: Any, pipeline: Any, numbers: Any, **kwargs: Any) -> Any:
        drawn.append(numbers)
        if os.environ["RANK"] == "1" and len(drawn) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(args, pipeline, numbers, **kwargs)

    sample.call = dies  # type: ignore[assignment]
    raise SystemExit(sample.main(argv))
