"""CLIP's tokenizer (Radford et al. 2021, arXiv 2103.00020, section 2.4), through transformers: sentences → token ids.

Lower-cased byte-pair encoding. A sentence becomes <|startoftext|>, its tokens, <|endoftext|>, and padding up to 77 ids.
Stable Diffusion 1.x pads with <|endoftext|> (49407), 2.x with 0. Nothing here asks the network.
"""

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from minicc.errors import WeightsError

SHIPPED = Path(__file__).parents[1] / "pretrained" / "clip_tokenizer"  # OpenAI's vocabulary and merges
CONTEXT_LENGTH = 77  # tokens that CLIP's text encoders have positions for
START, END = "<|startoftext|>", "<|endoftext|>"


def load_tokenizer(folder: str | Path | None = None, pad_id: int | None = None) -> CLIPTokenizer:
    """CLIP's own tokenizer, or the one in a folder.

    folder: a tokenizer's, or a diffusers folder with tokenizer/ in it; None: the shipped one. pad_id: the id that fills
    up to model_max_length; None: as the folder says, or <|endoftext|>. Raises WeightsError.
    """
    place = find_tokenizer(Path(folder)) if folder is not None else SHIPPED
    config = read_config(place)
    try:
        # A padding token known from the start would also be cut out of prompts ("!!!" in SD 2.x); so it is set below.
        tokenizer = CLIPTokenizer.from_pretrained(place, local_files_only=True, pad_token=END)
    except Exception as error:  # tokenizers raises bare Exceptions for a damaged file
        raise WeightsError(f"{place}: not a CLIP tokenizer ({error}); expected vocab.json and merges.txt") from error
    check_special_tokens(tokenizer, place)
    tokenizer.model_max_length = min(tokenizer.model_max_length, CONTEXT_LENGTH)
    tokenizer.pad_token = token_of(tokenizer, pad_id) if pad_id is not None else config.get("pad_token", END)
    return tokenizer


def find_tokenizer(folder: Path) -> Path:
    """The folder itself or its tokenizer/, whichever holds the files."""
    for place in (folder, folder / "tokenizer"):
        if (place / "tokenizer.json").is_file() or (
            (place / "vocab.json").is_file() and (place / "merges.txt").is_file()
        ):
            return place
    raise WeightsError(f"{folder}: no tokenizer; expected vocab.json and merges.txt, or tokenizer.json, in it")


def read_config(place: Path) -> dict[str, str]:
    """The special tokens that the two config files name; older files wrap them in dicts."""
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = place / name
        try:
            values = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        except ValueError as error:
            raise WeightsError(f"{path}: not JSON ({error}); take the file from its source again") from error
        if not isinstance(values, dict):
            raise WeightsError(
                f"{path}: expected names with values, got {type(values).__name__}; take it from its source"
            )
        for key, value in values.items():
            if key.endswith("_token") and value:
                tokens[key] = value["content"] if isinstance(value, dict) else value
    return tokens


def check_special_tokens(tokenizer: CLIPTokenizer, place: Path) -> None:
    """Start and end must be in the vocabulary: transformers adds missing ones past the text encoder's last row."""
    size = tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    for token in (tokenizer.bos_token, tokenizer.eos_token):
        if tokenizer.convert_tokens_to_ids(token) >= size:
            raise WeightsError(f"{place}: {token} is not among the {size} tokens of vocab.json; train it with them")


def token_of(tokenizer: CLIPTokenizer, pad_id: int) -> str:
    """The token with this id; it must be one that the text encoder has a row for."""
    if not 0 <= pad_id < len(tokenizer):
        raise WeightsError(f"pad_id={pad_id}: this vocabulary has {len(tokenizer)} tokens, 0 to {len(tokenizer) - 1}")
    return str(tokenizer.convert_ids_to_tokens(pad_id))


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Prompts → ids, (B, model_max_length) long. What does not fit is cut, and a warning quotes it."""
    length = tokenizer.model_max_length
    ids = torch.full((len(prompts), length), tokenizer.pad_token_id)  # (B, 77)
    for row, prompt in zip(ids, prompts, strict=True):
        tokens = tokenizer(prompt, truncation=False, padding=False, verbose=False)["input_ids"]
        if len(tokens) > length:
            tokens = [*tokens[: length - 1], tokenizer.eos_token_id]
            lost = prompt[len(fitting(tokenizer, prompt)) :].strip()
            warnings.warn(f"prompt longer than {length - 2} tokens, these words were cut: {lost!r}", stacklevel=2)
        row[: len(tokens)] = torch.tensor(tokens)
    return ids


def fitting(tokenizer: CLIPTokenizer, prompt: str) -> str:
    """What of a prompt fits into the model's length: all of it, or the words before the first that is cut."""
    encoding = tokenizer(prompt, truncation=False, padding=False, return_offsets_mapping=True, verbose=False)
    length = tokenizer.model_max_length
    if len(encoding["input_ids"]) <= length:
        return prompt
    return prompt[: first_cut(prompt, encoding["offset_mapping"][length - 1][0])].rstrip()


def first_cut(prompt: str, position: int) -> int:
    """Where the word begins that the cut at this character falls in."""
    while position > 0 and not prompt[position - 1].isspace():
        position -= 1
    return position
