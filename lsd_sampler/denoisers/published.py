"""Published checkpoints by short names: where they lie, and how large they are."""

from typing import NamedTuple

from .sizes import ModelSize


class HubModel(NamedTuple):
    """A published checkpoint.

    Args:
        family (`str`): the family that reads it.
        hub_id (`str`): the repository.
        size ([`ModelSize`]): the size of the model.
        file (`str`, *optional*): the file of the checkpoint, where the repository holds several.
    """

    family: str
    hub_id: str
    size: ModelSize
    file: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are needed, tokenizers left out."""
        if self.file:
            return (self.file,)
        is_sharded = self.size.weight_bytes > 10**10
        return ("config.json", "model*.safetensors" if is_sharded else "model.safetensors")


def _ddit(parameters: int, hidden_size: int, prediction_type: str = "logits") -> ModelSize:
    timed = prediction_type == "log_score"
    return ModelSize(parameters, 4, 1024, 50258, 4 * hidden_size, prediction_type, timed)


def _maskgit(size: str, parameters: int, side: int, hidden_size: int) -> HubModel:
    model_size = ModelSize(parameters, 4, side * side, 16385, 6 * hidden_size)
    return HubModel("maskgit", "llvictorll/Halton-Maskgit", model_size, f"ImageNet_{16 * side}_{size}.pth")


# 2 bytes of keys and as many of values, for layers x heads x 128 numbers
_LLADA = ModelSize(8_015_581_184, 2, 4096, 126464, 12288, key_value_bytes=4 * 32 * 32 * 128)
_DREAM = ModelSize(7_615_616_512, 2, 2048, 152064, 18944, key_value_bytes=4 * 28 * 4 * 128)
_DIFFULLAMA = ModelSize(6_738_415_616, 2, 2047, 32000, 11008, key_value_bytes=4 * 32 * 32 * 128)

SHORT_NAMES = {
    "radd": HubModel("radd", "JingyangOu/radd-lambda-dce", _ddit(162_265_682, 768)),
    "radd-t": HubModel("radd", "JingyangOu/radd-t-dce", _ddit(162_265_682, 768)),
    "radd-medium": HubModel("radd", "JingyangOu/radd-lambda-dce-medium", _ddit(405_191_762, 1024)),
    "sedd-small": HubModel("sedd", "louaaron/sedd-small", _ddit(169_627_218, 768, "log_score")),
    "sedd-medium": HubModel("sedd", "louaaron/sedd-medium", _ddit(424_477_010, 1024, "log_score")),
    "mdlm": HubModel("mdlm", "kuleshov-group/mdlm-owt", _ddit(169_627_218, 768)),
    "mdlm-no-flashattn": HubModel("mdlm", "kuleshov-group/mdlm-no_flashattn-fp32-owt", _ddit(169_627_218, 768)),
    "llada-8b": HubModel("masked_lm", "GSAI-ML/LLaDA-8B-Base", _LLADA),
    "llada-8b-instruct": HubModel("masked_lm", "GSAI-ML/LLaDA-8B-Instruct", _LLADA),
    "dream-7b": HubModel("masked_lm", "Dream-org/Dream-v0-Base-7B", _DREAM),
    "dream-7b-instruct": HubModel("masked_lm", "Dream-org/Dream-v0-Instruct-7B", _DREAM),
    "diffugpt-s": HubModel("masked_lm", "diffusionfamily/diffugpt-s", ModelSize(124_439_808, 4, 1023, 50257, 3072)),
    "diffugpt-m": HubModel("masked_lm", "diffusionfamily/diffugpt-m", ModelSize(354_824_192, 4, 1023, 50258, 4096)),
    "diffullama": HubModel("masked_lm", "diffusionfamily/diffullama", _DIFFULLAMA),
    "halton-maskgit-256-tiny": _maskgit("tiny", 23_031_425, 16, 384),
    "halton-maskgit-256-small": _maskgit("small", 69_344_769, 16, 512),
    "halton-maskgit-256-base": _maskgit("base", 142_224_641, 16, 768),
    "halton-maskgit-384-small": _maskgit("small", 69_508_609, 24, 512),
    "halton-maskgit-384-base": _maskgit("base", 142_470_401, 24, 768),
    "halton-maskgit-384-large": _maskgit("large", 479_984_641, 24, 1024),
}
