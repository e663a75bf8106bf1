"""What a run has written, to compare it with another run."""

import re
from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, without its name and the seconds that a run took."""
    changing = rb', "seconds": [0-9.]+|, [0-9]+ seconds;|' + re.escape(str(folder)).encode()
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): re.sub(changing, b"", path.read_bytes()) for path in files}
