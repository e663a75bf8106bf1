"""The file of `lsd-sample --output`, and what is kept of a run that was stopped."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..support.atomic import write_atomically


class SampleFile:
    """Samples by number. Those that are drawn are appended to a file beside the output, which they replace in the end.

    Args:
        path (`Path`): the output.
        identity (`str`): what decides the samples, in short.
        resume (`bool`), overwrite (`bool`): whether to go on with, or to remove, what an earlier run has drawn.

    Attributes:
        samples (`dict[int, dict]`): those of an earlier run.

    Raises:
        ValueError: if there are some, and it is not said what to do; or they are of a run with other options.
    """

    def __init__(self, path: Path, identity: str, *, resume: bool = False, overwrite: bool = False):
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.samples: dict[int, dict[str, Any]] = {}
        self._header = json.dumps({"identity": identity})
        if self.part.exists() and not overwrite:
            if not resume:
                advice = "`--resume` to go on, `--overwrite` to start over"
                raise ValueError(f"`--output` {str(path)!r} has an unfinished run in {self.part.name}: {advice}.")
            self._read()
        # whole again: a line that was cut short by a kill does not stay
        lines = [self._header, *(json.dumps([i, sample]) for i, sample in self.samples.items())]
        write_atomically(self.part, ("\n".join(lines) + "\n").encode())

    def add(self, samples: Mapping[int, Mapping[str, Any]]) -> None:
        """Appends samples. If they cannot be written now, that is no error: the output may be in the end."""
        with suppress(OSError), self.part.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps([i, sample]) + "\n" for i, sample in samples.items())

    def finish(self, samples: Mapping[int, Mapping[str, Any]]) -> None:
        """Writes the output, one sample a line in their order."""
        lines = [json.dumps(samples[i]) for i in range(len(samples))]
        write_atomically(self.path, ("\n".join(lines) + "\n").encode())
        self.part.unlink()

    def _read(self) -> None:
        header, *lines = self.part.read_text(encoding="utf-8", errors="replace").split("\n")
        if header != self._header:
            raise ValueError(
                f"`--output` {str(self.path)!r}: {self.part.name} was begun with other options, another model or other"
                " prompts: `--overwrite` to start over."
            )
        for line in lines:
            try:
                number, sample = json.loads(line)
            except ValueError:  # the end, or a line that was cut short
                continue
            self.samples[int(number)] = sample
