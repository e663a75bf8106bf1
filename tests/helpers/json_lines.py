"""Files of a JSON value a line."""

import json
from pathlib import Path
from typing import Any


def write(path: Path, *lines: Any) -> Path:
    """Writes a file of these lines; a string is a line as it is."""
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path
