"""The tiny Stable Diffusion before it has learned anything: its shapes, its tokenizer, its first weights."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn

from minicc.diffusion.schedule import NoiseSchedule
from minicc.models.text import TextConfig, text_encoder
from minicc.models.tokenizer import END, START, load_tokenizer
from minicc.models.unet import UNet, UNetConfig
from minicc.models.vae import VAE, VAEConfig
from minicc.models.vocabulary import save_words
from minicc.pipeline import StableDiffusion

M = TypeVar("M", bound=nn.Module)
UNET = UNetConfig(block_out_channels=(96, 128, 192), layers_per_block=1, cross_attention_dim=128, sample_size=16)
# Two groups: with more, two or four channels each, normalisation takes away the very colours that are to be kept.
VAE_CONFIG = VAEConfig(block_out_channels=(16, 32, 64, 128), layers_per_block=1, norm_num_groups=2)
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # CLIP's pieces (arXiv 2103.00020, code release)


def train_tokenizer(captions: Sequence[str], folder: Path, size: int = 1000) -> Path:
    """Byte-pair encoding in CLIP's manner, learned from captions: vocab.json and merges.txt, at most `size` tokens.

    The same captions give the same files: the trainer numbers the letters at words' ends as it happens to meet them, in
    another order each time, and breaks ties by number; so they are handed to it in order, as special tokens. The
    captions' words lie beside them, so that prompts can be checked for words the model will not have met.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.Split(pattern=Regex(WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    pieces = (p for c in captions for p, _ in split_up(tokenizer, c))
    ends = sorted({piece[-1] + "</w>" for piece in pieces})
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[START, END, *ends],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.model.save(str(folder))
    special_tokens_last(folder / "vocab.json")
    save_words(captions, folder)
    return folder


def split_up(tokenizer: Tokenizer, caption: str) -> list[tuple[str, tuple[int, int]]]:
    """A caption's words, in the letters that stand for bytes, and where they were."""
    assert tokenizer.pre_tokenizer is not None
    assert tokenizer.normalizer is not None
    return tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(caption))


def special_tokens_last(path: Path) -> None:
    """Number the vocabulary anew so that it ends with start and end of text, as CLIP's does."""
    tokens = sorted((vocabulary := json.loads(path.read_text("utf-8"))), key=vocabulary.__getitem__)
    ordered = [token for token in tokens if token not in (START, END)] + [START, END]
    path.write_text(json.dumps({token: i for i, token in enumerate(ordered)}, ensure_ascii=False), "utf-8")


def new_vae(seed: int) -> VAE:
    """The VAE with first weights of a seed."""
    return seeded(lambda: VAE(VAE_CONFIG), seed)


def new_base(vae: VAE, tokenizer_folder: Path, seed: int) -> StableDiffusion:
    """The whole model around a trained VAE: U-Net and text encoder with first weights of a seed."""
    tokenizer = load_tokenizer(tokenizer_folder)
    text = TextConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    unet, encoder = seeded(lambda: UNet(UNET), seed), seeded(lambda: text_encoder(text), seed + 1)
    return StableDiffusion(unet, vae, encoder, tokenizer, NoiseSchedule(), "tiny", tokenizer_source=tokenizer_folder)


def seeded(make: Callable[[], M], seed: int) -> M:
    """make(), with the first weights that modules draw from the global generator; it is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()
