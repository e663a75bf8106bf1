"""Dictionaries of fairseq (`dict.LANGUAGE.txt`), and the texts that are made of their symbols.

A text is already split into pieces with blanks between them. A piece that ends in `@@` goes on in the next one.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

from ..support.atomic import write_atomically
from ..support.hub import admit_to_pipelines
from ..support.lfs import check_no_pointer


BOS, PAD, EOS, UNK = range(4)
SPECIAL_SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>")
CONTINUES = "@@"
SOURCE_FILE, TARGET_FILE = "dict.source.txt", "dict.target.txt"
_OVERWRITE = "#fairseq:overwrite"


class SymbolDictionary:
    """Symbols by their ids, and their counts. The first four are `<s>`, `<pad>`, `</s>` and `<unk>`.

    Args:
        lines (sequence of `str`): `SYMBOL COUNT`, in the order of the ids from 4 on. A line may end in
            `#fairseq:overwrite`: its symbol may be there already, and the text then stands for the later id.
        where (`str`): what error messages call them.

    Raises:
        ValueError: for a line without a count, or a symbol that is there already; the message has its number.
    """

    def __init__(self, lines: Sequence[str], where: str = "`lines`"):
        self.lines = list(lines)
        self.symbols: list[str] = list(SPECIAL_SYMBOLS)
        self.counts = [1] * len(SPECIAL_SYMBOLS)
        self.ids = {symbol: i for i, symbol in enumerate(SPECIAL_SYMBOLS)}
        for number, line in enumerate(self.lines, start=1):
            self._add(line, f"{where}, line {number}")

    def _add(self, line: str, where: str) -> None:
        symbol, _, last = line.rstrip().rpartition(" ")
        overwrites = last == _OVERWRITE
        if overwrites:
            symbol, _, last = symbol.rpartition(" ")
        try:
            count = int(last)
        except ValueError:
            raise ValueError(f"{where}: a line of a dictionary must be 'SYMBOL COUNT', got {line!r}.") from None
        if symbol in self.ids and not overwrites:
            raise ValueError(
                f"{where}: the symbol {symbol!r} is there already. If it is meant, end the line in {_OVERWRITE!r}."
            )
        self.ids[symbol] = len(self.symbols)
        self.symbols.append(symbol)
        self.counts.append(count)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Reads a dictionary.

        Raises:
            OSError: if the file is missing.
            ValueError: if it is none; the message names it.
        """
        if not file.is_file():
            raise FileNotFoundError(f"There is no file {file}: a translation model needs its dictionaries.")
        check_no_pointer(file)
        try:
            # not `splitlines`: a symbol may be one of Unicode's other line ends
            lines = file.read_text(encoding="utf-8").replace("\r\n", "\n").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is no text in UTF-8: {error}") from error
        return cls(lines[:-1] if lines[-1] == "" else lines, str(file))

    def __len__(self) -> int:
        return len(self.symbols)


class PieceTokenizer:
    """Texts in pieces to token ids of the source, and ids of the target to texts.

    Args:
        source, target ([`SymbolDictionary`]): what ids stand for.
    """

    bos_token_id, pad_token_id, eos_token_id, unk_token_id = BOS, PAD, EOS, UNK

    def __init__(self, source: SymbolDictionary, target: SymbolDictionary):
        self.source, self.target = source, target

    def encode(self, text: str) -> list[int]:
        """Ids of a source text, with `<s>` before and `</s>` after it. An unknown piece is `<unk>`."""
        return [BOS, *(self.source.ids.get(piece, UNK) for piece in text.split()), EOS]

    def decode(self, ids: Sequence[int] | torch.Tensor, *, keep_pieces: bool = False, **_: Any) -> str:
        """The text of target ids, without `<s>`, `<pad>` and `</s>`.

        Args:
            ids (sequence of `int`): token ids.
            keep_pieces (`bool`, defaults to `False`): whether to leave words split into pieces.
        """
        text = " ".join(self.target.symbols[i] for i in map(int, ids) if i not in (BOS, PAD, EOS))
        return text if keep_pieces else (text + " ").replace(f"{CONTINUES} ", "").rstrip()

    def batch_decode(self, rows: Sequence[Sequence[int]] | torch.Tensor, **options: Any) -> list[str]:
        """The text of each row of target ids; options as for `decode`."""
        return [self.decode(row, **options) for row in rows]

    def convert_ids_to_tokens(self, i: int) -> str:
        """The symbol of a target id."""
        return self.target.symbols[i]

    def save_pretrained(self, save_directory: str | os.PathLike, **_: Any) -> None:
        """Writes `dict.source.txt` and `dict.target.txt`."""
        folder = Path(os.path.expanduser(save_directory))
        folder.mkdir(parents=True, exist_ok=True)
        for name, dictionary in ((SOURCE_FILE, self.source), (TARGET_FILE, self.target)):
            write_atomically(folder / name, "".join(f"{line}\n" for line in dictionary.lines).encode())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **_: Any) -> Self:
        """Reads what `save_pretrained` wrote.

        Raises:
            OSError: if a file is missing.
            ValueError: if one is no dictionary.
        """
        folder = Path(os.path.expanduser(pretrained_model_name_or_path))
        return cls(SymbolDictionary.read(folder / SOURCE_FILE), SymbolDictionary.read(folder / TARGET_FILE))


admit_to_pipelines(PieceTokenizer, "save_pretrained", "from_pretrained")
