"""Where weights come from: a file, a diffusers folder, a name on the hub; and what lies beside them."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minicc.errors import Error, WeightsError
from minicc.weights.layouts import State
from minicc.weights.read import read_metadata, read_state_dict, release

PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"  # what the package ships
PARTS = ("unet", "vae", "text_encoder")
SMALL = ("model_index.json", "config.json", "*/config.json", "tokenizer/*", "scheduler/*")
FILES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".json")
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")  # names of the weights in a folder

STAGES = {  # the shipped models' names → what each is, what trains it, where the result lies
    "tiny": ("base", "minicc train base --out runs/base", "runs/base/sd"),
    "tiny-phase1": ("phase-1 ControlNet", "minicc train phase1 --out runs/phase1", "runs/phase1/controlnet"),
    "tiny-phase2": ("phase-2 ControlNet", "minicc train phase2 --out runs/phase2", "runs/phase2/controlnet"),
    "tiny-detector": ("clothing detector", "minicc train detector --out runs/detector", "runs/detector/detector"),
}


@dataclass(frozen=True)
class Weights:
    """What was read: the state dict as it is in the file, the config beside it if any, a name for errors."""

    state: State
    name: str
    config: dict[str, Any] | None = None
    notes: dict[str, str] = field(default_factory=dict)  # the header's metadata
    path: Path = Path()
    look: bool = False  # whether every number is looked at for NaN, mapped ones too

    def release(self) -> None:
        """Let go of the pages of the file that were read so far; they are read again when needed."""
        release(self.state)


def resolve(source: str | Path, parts: Iterable[str] = PARTS, half: bool = False) -> Path:
    """The local path of a file, a folder, a shipped model's name, or a hub id (its needed files are downloaded).

    A shipped name comes before a folder that is called so too: give that as ./name. half: prefer fp16 variants. A hub
    id is "owner/name".
    Raises WeightsError if it is none of these, or the hub cannot be reached.
    """
    path, name = Path(source).expanduser(), isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*", source)
    shipped = sorted(p for p in PRETRAINED.glob("*") if name and p.name in (source, f"{source}.safetensors"))
    if shipped:
        return shipped[0]
    if path.exists():
        return path
    if source in STAGES:
        raise WeightsError(not_shipped(str(source)))
    if isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) and path.suffix not in FILES:
        return download(source, parts, half)
    raise WeightsError(f"{source} is not there: give the path of a weights file, a diffusers folder, or a hub id")


def not_shipped(name: str) -> str:
    """What to do while a shipped model's name has no weights behind it."""
    what, command, result = STAGES[name]
    return f"this version ships no trained {what} yet ({name}): train one with `{command}`, then give {result}"


def download(hub_id: str, parts: Iterable[str], half: bool) -> Path:
    """The files of a hub repository that are needed, one variant of each model, in the local cache."""
    from huggingface_hub import list_repo_files, snapshot_download

    try:
        wanted = wanted_files(list_repo_files(hub_id), parts, half)
        return Path(snapshot_download(hub_id, allow_patterns=[*SMALL, *wanted]))
    except Exception as error:
        try:  # no network, perhaps: what an earlier run left
            return Path(snapshot_download(hub_id, local_files_only=True))
        except Exception:
            raise WeightsError(
                f"{hub_id} is neither a path here nor a repository that the hub gives ({type(error).__name__}: "
                f"{str(error).splitlines()[0][:150]}). Check the name and the network, or download it and give its path"
            ) from error


def wanted_files(names: list[str], parts: Iterable[str], half: bool) -> list[str]:
    """Of a repository's files, those of one variant of each part: the index and its shards, or the one file."""
    wanted: list[str] = []
    for prefix in (*(f"{part}/" for part in parts), ""):
        inside = [n.removeprefix(prefix) for n in names if n.startswith(prefix) and "/" not in n.removeprefix(prefix)]
        chosen = pick(inside, half)
        if chosen is not None:
            wanted.append(prefix + chosen)
        if chosen is not None and chosen.endswith(".json"):
            stem = chosen.split(".")[0] + (".fp16" if ".fp16" in chosen else "")
            wanted += [prefix + n for n in inside if re.fullmatch(re.escape(stem) + r"-\d+-of-\d+\.\w+", n)]
    return wanted


def pick(names: Iterable[str], half: bool = False) -> str | None:
    """The weights among a folder's file names: safetensors before pickles, the whole dtype before (or after) fp16."""
    names = set(names)
    variants = ["fp16", ""] if half else ["", "fp16"]
    for suffix in ("safetensors", "bin"):
        for variant in variants:
            dotted = f".{variant}" if variant else ""
            for stem in STEMS:
                for name in (f"{stem}{dotted}.{suffix}", f"{stem}.{suffix}.index{dotted}.json"):
                    if name in names:
                        return name
    return None


def open_weights(source: str | Path, part: str, half: bool = False) -> Weights:
    """Read the weights of one part ('unet', 'vae', 'text_encoder', 'controlnet') from wherever `source` points.

    A folder: the part's subfolder if there is one, else the folder itself.
    """
    path = resolve(source, [part], half)
    if path.is_file():
        beside = path.parent / "config.json" if path.name.split(".")[0] in STEMS else None
        return Weights(read_state_dict(path), path.name, read_json(beside), read_metadata(path), path)
    if not path.is_dir():
        raise WeightsError(f"{path} is neither a file nor a folder: expected weights of a {part}")
    folder = path / part if (path / part).is_dir() else path
    chosen = pick((p.name for p in folder.iterdir()), half)
    if chosen is None:
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise WeightsError(
            f"{folder} holds no weights of a {part}: expected {STEMS[0]}.safetensors or model.safetensors (or .bin, an "
            f"fp16 variant, an index of shards), found {there}"
        )
    return Weights(
        read_state_dict(folder / chosen), f"{folder.name}/{chosen}", read_json(folder / "config.json"), {}, folder
    )


def read_json(path: Path | None) -> dict[str, Any] | None:
    """A config file's content; None if there is none. Raises WeightsError if it is not JSON."""
    if path is None or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path.parent.name}/{path.name} is not JSON ({error}): download it again") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path.parent.name}/{path.name} is a {type(content).__name__}, expected an object")
    return content


def noted(weights: Weights, part: str, from_config: Callable[[dict[str, Any]], Any]) -> Any | None:
    """The config from config.json beside the weights, else from the note that minicc wrote into the file, else None."""
    note = weights.notes.get(f"minicc.{part}")
    try:
        if weights.config is not None:
            return from_config(weights.config)
        return from_config(json.loads(note)) if note else None
    except Error as error:
        raise WeightsError(f"{weights.name}: {error}") from None
    except (TypeError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{weights.name}: its config describes no {part} ({error}): take the one it came with"
        ) from None
