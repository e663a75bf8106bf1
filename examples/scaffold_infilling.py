"""Keep a scaffold and fill in the rest of the molecule, in 16 network calls.

    python examples/scaffold_infilling.py
    python examples/scaffold_infilling.py --fragment "O=C(N)c1ccccc1" --before 20 --order confidence

The fragment, a SMILES string, stands at the start of the canvas or behind `--before` masks. All other positions are
masked; the model decides about the length as well. The example says which share of the samples are valid molecules,
and which share of these contain the fragment as a substructure. The given tokens never change, but they may come to
mean something else in a molecule, for instance where a ring bond of the same number is open around them.
It needs rdkit and fcd-torch (`pip install lsd_sampler[molecules]`).
"""

import argparse
from pathlib import Path

import torch

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.evaluation.molecules import Molecule, check_packages, read_molecules, smiles_of
from lsd_sampler.evaluation.tokens import encode


MODEL = Path(__file__).resolve().parents[1] / "models" / "molecules"


def canvas_of(pipe: MaskedDiffusionPipeline, fragment: str, before: int) -> list[int]:
    """Token ids of a whole sequence: masks around the fragment.

    Raises:
        ValueError: if the model lacks a token of the fragment, or there is no room for it.
    """
    (ids,) = encode(pipe.tokenizer, [fragment])
    if pipe.tokenizer.decode(ids, skip_special_tokens=False) != fragment:
        raise ValueError(f"`--fragment` {fragment!r} holds tokens that the model does not know.")
    if before + len(ids) > pipe.denoiser.length:
        raise ValueError(f"`--fragment` and `--before` must fit into {pipe.denoiser.length} tokens.")
    canvas = [pipe.denoiser.mask_token_id] * pipe.denoiser.length
    canvas[before : before + len(ids)] = ids
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(MODEL), help="what MaskedDiffusionPipeline loads, with a tokenizer")
    parser.add_argument("--sampler", help="folder or Hub id of a learned sampler; default: --order alone")
    parser.add_argument("--order", default="margin")
    parser.add_argument("--fragment", default="c1ccc2[nH]ccc2c1", help="SMILES; default: indole")
    parser.add_argument("--before", type=int, nargs="+", default=[0, 12], help="masks before it, one or more numbers")
    parser.add_argument("--steps", type=int, default=16, help="network calls")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--num-samples", type=int, default=64)
    args = parser.parse_args()
    try:
        check_packages()
    except ImportError as error:
        raise SystemExit(str(error)) from error
    (scaffold,) = read_molecules([args.fragment])
    if scaffold is None:
        raise SystemExit(f"`--fragment` {args.fragment!r} is no valid molecule.")
    pipe = MaskedDiffusionPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    if args.sampler:
        pipe.scheduler = LSDScheduler.from_pretrained(args.sampler)
    else:
        pipe.scheduler = LSDScheduler.from_config(pipe.scheduler.config, order=args.order)

    def kept(molecule: Molecule) -> bool:
        return molecule.graph.HasSubstructMatch(scaffold.graph)

    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": args.steps, "temperature": args.temperature, "num_samples": args.num_samples}
    for before in args.before:
        out = pipe(input_ids=canvas_of(pipe, args.fragment, before), generator=generator, **options)
        valid = [molecule for molecule in read_molecules(map(smiles_of, out.texts or [])) if molecule]
        found = [molecule.smiles for molecule in valid if kept(molecule)]
        print(f"{args.fragment} behind {before} masks, {args.steps} network calls, {args.num_samples} samples:")
        print(f"  valid {len(valid) / args.num_samples:.3f}, with the fragment {len(found) / max(1, len(valid)):.3f}")
        print("".join(f"  {smiles}\n" for smiles in dict.fromkeys(found[:4])))


if __name__ == "__main__":
    main()
