"""Train a small class-conditional image model (Halton-MaskGIT format) on Fashion-MNIST, and its codebook and judge.

    python examples/train_garments.py --data fashion-mnist --output-dir models/garments --minutes 90

The folder of the data holds the four IDX files (gzip). A picture of 28 x 28 is a canvas of 14 x 14 tokens: patches of
2 x 2, a codebook of 256 by k-means. A run that was stopped goes on from its last checkpoint when called again. At the
end the folder holds the model in bfloat16 safetensors, `codebook.safetensors` (tokens to pictures),
`classifier.safetensors` (the judge), `image_reference.safetensors` (what `lsd-eval` compares samples with),
`training.jsonl`, and a card with the held-out loss and what samples of one token a call are worth (`--judge` samples
and writes the card again).
"""

import argparse
import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.cluster.vq import kmeans2
from trainer import Batch, Trainer, add_arguments, mask_tokens, masked_loss, training_lines

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.denoisers.maskgit import MaskGITDenoiser
from lsd_sampler.denoisers.patch_codebook import CODEBOOK_NAME, PatchCodebook
from lsd_sampler.evaluation.frechet import frechet_distance, moments
from lsd_sampler.evaluation.image_classifier import CLASSIFIER_NAME, ImageClassifier
from lsd_sampler.evaluation.image_reference import REFERENCE_NAME, ImageReference, in_turn


CLASSES = ["T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
SHOES = (5, 7, 9)  # all of them point to the left
PATCH, CODES, LABEL_DROPOUT = 2, 256, 0.1


def read_images(folder: str, part: str, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures `(N, H, W)` in [0, 1], and labels; `part` is "train" or "t10k"."""
    raw = {kind: gzip.decompress(next(Path(folder).glob(f"{part}-{kind}-idx*.gz")).read_bytes())
           for kind in ("images", "labels")}  # fmt: skip
    labels = torch.from_numpy(np.frombuffer(raw["labels"], np.uint8, offset=8).astype(np.int64))
    height, width = np.frombuffer(raw["images"], ">i4", count=4)[2:]
    pixels = np.frombuffer(raw["images"], np.uint8, offset=16).reshape(-1, height, width)
    return torch.from_numpy(pixels / np.float32(255)).to(device), labels.to(device)


def make_codebook(images: torch.Tensor, seed: int) -> PatchCodebook:
    """By k-means of patches that are not black, and black."""
    patches = PatchCodebook.cut(images[:10_000].cpu(), PATCH, PATCH).flatten(0, 1)
    patches = patches[patches.amax(1) > 0]
    chosen = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(seed))[:100_000]]
    means, _ = kmeans2(chosen.double().numpy(), min(CODES - 1, len(chosen)), minit="++", rng=seed)
    codes = torch.cat([torch.zeros(1, PATCH * PATCH), torch.from_numpy(means).float()])
    return PatchCodebook(codes.view(-1, PATCH, PATCH))


def train_classifier(images: torch.Tensor, labels: torch.Tensor, args: argparse.Namespace) -> ImageClassifier:
    """One-cycle AdamW on pictures shifted by up to two pixels, mirrored if they are no shoes."""
    torch.manual_seed(args.seed)
    model, generator = ImageClassifier(len(CLASSES)).to(args.device), torch.Generator().manual_seed(args.seed)
    steps = args.classifier_epochs * math.ceil(len(images) / 256)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=max(2, steps))
    padded, symmetric = F.pad(images, (2, 2, 2, 2)), ~torch.isin(labels, torch.tensor(SHOES, device=args.device))
    H, W = images.shape[1:]
    model.train()
    for _ in range(args.classifier_epochs):
        for chosen in torch.randperm(len(images), generator=generator).to(args.device).split(256):
            down, right, mirror = torch.randint(5, (3,), generator=generator).tolist()
            x = padded[chosen, down : down + H, right : right + W]
            if mirror < 2:
                x = torch.where(symmetric[chosen, None, None], x.flip(2), x)
            loss = F.cross_entropy(model(x), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def classify(model: ImageClassifier, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and most likely classes."""
    parts = [model.features(x) for x in images.split(500)]
    features = torch.cat(parts)
    return features, model.head(features).argmax(1)


def initialise(model: MaskGITDenoiser) -> None:
    """Vectors of about unit length for tokens and positions; blocks begin as plain ones, without conditioning."""
    D = model.config["hidden_dim"]
    for embedding in (model.tok_emb, model.pos_emb, model.reg_tokens):
        if embedding is not None:
            torch.nn.init.normal_(embedding.weight, std=D**-0.5)
    for layer in [*model.transformer.layers, model.last_norm]:
        conditioning: Any = layer.mlp[1]
        torch.nn.init.zeros_(conditioning.weight)
        torch.nn.init.zeros_(conditioning.bias)
        if conditioning.out_features == 6 * D:  # shift, scale and gate, twice
            conditioning.bias.data.view(6, D)[2::3] = 1.0


def build_model(args: argparse.Namespace, side: int, codes: int) -> MaskGITDenoiser:
    model = MaskGITDenoiser({
        "input_size": side, "hidden_dim": args.hidden_size, "codebook_size": codes, "depth": args.blocks,
        "heads": args.heads, "nclass": len(CLASSES), "register": 1, "dropout": args.dropout,
    })  # fmt: skip
    initialise(model)
    return model


class GarmentTrainer(Trainer):
    """Pictures are mirrored half of the time, if they are no shoes. Labels are dropped now and then, for guidance."""

    def __init__(self, args: argparse.Namespace):
        images, labels = read_images(args.data, "train", args.device)
        if not (args.output_dir / CODEBOOK_NAME).exists():
            make_codebook(images, args.seed).save_pretrained(args.output_dir)
        if not (args.output_dir / CLASSIFIER_NAME).exists():
            train_classifier(images, labels, args).save_pretrained(args.output_dir)
        print("The codebook and the classifier are made.", flush=True)
        codebook = PatchCodebook.from_pretrained(args.output_dir).to(args.device)
        tokens_2NL = torch.stack([codebook.encode(images), codebook.encode(images.flip(2))]).to(torch.int16)
        symmetric_N = ~torch.isin(labels, torch.tensor(SHOES, device=args.device))
        torch.manual_seed(args.seed)
        model = build_model(args, math.isqrt(tokens_2NL.shape[2]), len(codebook.patches))
        valid = zip(tokens_2NL[0, : args.valid].long().split(250), labels[: args.valid].split(250), strict=True)

        def draw(generator: torch.Generator) -> Batch:
            index_B = torch.randint(
                args.valid, len(labels), (args.batch_size,), generator=generator, device=args.device
            )
            coin_2B = torch.rand(2, args.batch_size, generator=generator, device=args.device)
            mirrored_B = (symmetric_N[index_B] & (coin_2B[0] < 0.5)).long()
            labels_B = torch.where(coin_2B[1] < LABEL_DROPOUT, model.num_classes, labels[index_B])
            return tokens_2NL[mirrored_B, index_B].long(), labels_B

        def noise(batch: Batch, generator: torch.Generator) -> Batch:
            return *mask_tokens(batch[0], model.mask_token_id, generator), batch[1]

        super().__init__(args, model, masked_loss, noise, draw, list(valid))
        parameters = sum(p.numel() for p in model.parameters())
        print(f"{parameters / 1e6:.2f} M parameters, {len(labels) - args.valid} training pictures", flush=True)


def sample(args: argparse.Namespace, guidance_scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures drawn by one token a call, equally many of each class, and their classes."""
    pipe = MaskedDiffusionPipeline.from_pretrained(str(args.output_dir)).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    codebook = PatchCodebook.from_pretrained(args.output_dir).to(args.device)
    labels, generator = torch.arange(args.samples) % len(CLASSES), torch.Generator(args.device).manual_seed(args.seed)
    images = []
    for part in labels.split(500):
        out = pipe(
            num_samples=len(part), class_labels=part, guidance_scale=guidance_scale, generator=generator,
            num_inference_steps=pipe.denoiser.length, output_type="ids",
        )  # fmt: skip
        images.append(codebook.decode(out.sequences))
    return torch.cat(images), labels.to(args.device)


def make_reference(args: argparse.Namespace) -> None:
    """Writes what `lsd-eval` compares samples with; says how far held-out training pictures are from test ones."""
    test, test_labels = read_images(args.data, "t10k", args.device)
    images, labels = (part[: args.valid] for part in read_images(args.data, "train", args.device))
    classifier = ImageClassifier.from_pretrained(args.output_dir).to(args.device)
    codebook = PatchCodebook.from_pretrained(args.output_dir).to(args.device)
    features, predicted = classify(classifier, test)
    accuracy = (predicted == test_labels).double().mean().item()
    chosen = in_turn(labels)
    tokens = codebook.encode(images[chosen])
    reference = ImageReference(moments(features), len(test), accuracy, tokens.cpu(), labels[chosen].cpu())
    reference.save_pretrained(args.output_dir)
    for name, pictures in (("as they are", images[chosen]), ("through the codebook", codebook.decode(tokens))):
        found, classes = classify(classifier, pictures)
        right = (classes == labels[chosen]).double().mean().item()
        row = {"samples": f"{len(chosen)} held-out pictures {name}", "frechet": frechet_distance(found, features)}
        print(json.dumps(row | {"accuracy": right}), flush=True)


def save_grid(images: torch.Tensor, path: Path, rows: int = 8) -> None:
    """The first pictures in a grid, a column for each class."""
    grid = images[: rows * len(CLASSES)].unflatten(0, (-1, len(CLASSES))).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    Image.fromarray((255 * grid).round().byte().cpu().numpy()).save(path)


def write_card(args: argparse.Namespace) -> None:
    summary = json.loads((args.output_dir / "training_summary.json").read_text())
    test, test_labels = read_images(args.data, "t10k", args.device)
    classifier = ImageClassifier.from_pretrained(args.output_dir).to(args.device)
    codebook = PatchCodebook.from_pretrained(args.output_dir).to(args.device)
    reference, predicted = classify(classifier, test)
    accuracy = (predicted == test_labels).float().mean().item()
    decoded = codebook.decode(codebook.encode(test))
    decoded_features, decoded_classes = classify(classifier, decoded)
    floor = frechet_distance(decoded_features, reference)
    rows = [
        {"samples": "test pictures through the codebook", "frechet": floor,
         "accuracy": (decoded_classes == test_labels).float().mean().item()}
    ]  # fmt: skip
    for scale in args.guidance_scales:
        images, labels = sample(args, scale)
        features, classes = classify(classifier, images)
        rows.append({
            "samples": f"{len(images)} samples, guidance {scale:g}", "frechet": frechet_distance(features, reference),
            "accuracy": (classes == labels).float().mean().item(),
        })  # fmt: skip
        save_grid(images, args.output_dir / f"training_samples_{scale:g}.png")
    for row in rows:
        print(json.dumps(row), flush=True)
    table = "\n".join(f"| {row['samples']} | {row['frechet']:.4f} | {row['accuracy']:.3f} |" for row in rows)
    psnr = -10 * math.log10((decoded - test).square().mean().item())
    card = f"""---
license: apache-2.0
tags: [masked-diffusion, maskgit, images]
---

# {args.output_dir.name}

Halton-MaskGIT model of {summary["parameters"] / 1e6:.2f} M parameters: pictures of garments, by class.

- Data: Fashion-MNIST (Zalando SE, MIT licence), 60,000 training pictures of 28 x 28, of which {args.valid} are held
  out. Pictures of no shoes are mirrored half of the time.
- Tokens: patches of {PATCH} x {PATCH} pixels, {len(codebook.patches)} codes by k-means ({psnr:.1f} dB on test
  pictures). `lsd_sampler.denoisers.patch_codebook.PatchCodebook` turns them into pictures.
- Classes: {", ".join(f"{i} {name}" for i, name in enumerate(CLASSES))}. Labels were dropped with probability
  {LABEL_DROPOUT} for classifier-free guidance.
{training_lines(summary, test[0].numel() // PATCH**2)}
- Judge: `classifier.safetensors` (`lsd_sampler.evaluation.image_classifier`), accuracy {accuracy:.4f} on the
  {len(test)} test pictures.
- `lsd-eval --model {args.output_dir}` compares samplers by these two. `image_reference.safetensors` holds the moments
  of the test pictures' features, and held-out training pictures as tokens.
- Made by `examples/train_garments.py`.

One token a call, temperature 1; Fréchet distance of the judge's features to the test pictures, and the share of
samples that it takes for the class that was asked for:

| | Fréchet distance | class accuracy |
|---|---|---|
{table}
"""
    (args.output_dir / "README.md").write_text(card)
    print(f"accuracy of the classifier on test pictures: {accuracy:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the IDX files")
    parser.add_argument("--hidden-size", type=int, default=192)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--classifier-epochs", type=int, default=8)
    parser.add_argument("--valid", type=int, default=2000, help="training pictures held out")
    parser.add_argument("--samples", type=int, default=1000, help="to judge the model by")
    parser.add_argument("--guidance-scales", type=float, nargs="+", default=[0.0], help="to sample with; 0 is none")
    parser.add_argument("--judge", action="store_true", help="no training: sample, judge and write the card")
    parser.add_argument("--reference", action="store_true", help=f"nothing but {REFERENCE_NAME}, for lsd-eval")
    add_arguments(parser, batch_size=32, steps=1_000_000, lr=2e-3)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if args.reference:
        make_reference(args)
        return
    if not args.judge:
        trainer = GarmentTrainer(args)
        trainer.run()
        trainer.export()
    make_reference(args)
    write_card(args)


if __name__ == "__main__":
    main()
