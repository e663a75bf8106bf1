"""Makes `lsd_sampler` known to lm-evaluation-harness, which has no entry points for models of other packages.

Python runs this at its start (by `lsd_sampler_lm_eval.pth`), so it imports nothing but what Python has loaded itself.
When a program imports the harness's models, one more name is registered. Nothing else is changed.
"""

import sys
from importlib.machinery import PathFinder


MODELS = "lm_eval.models"
NAME, TARGET = "lsd_sampler", "lsd_sampler.evaluation.lm_eval_model:LSDSamplerLM"


class AfterModels:
    """A finder that hands `lm_eval.models` on as it is found, with one step more after its import."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        """The module's spec, or None for any other module."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname == MODELS else None
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module):
                load(module)
                register()

            spec.loader.exec_module = load_and_register
        return spec


def register():
    """Adds the name to the harness's registry."""
    try:
        from lm_eval.api.registry import model_registry
    except ImportError:  # an older harness
        return
    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)


sys.meta_path.insert(0, AfterModels)
