"""The tokenizer gives the official ids, offline, for Stable Diffusion 1 and 2, and loads small ones by the same way."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, trainers
from transformers import CLIPTokenizer

from minicc.errors import WeightsError
from minicc.models.tokenizer import END, SHIPPED, START, load_tokenizer, tokenize

OFFICIAL = json.loads((Path(__file__).parent / "data" / "clip_token_ids.json").read_text("utf-8"))
SENTENCES = ["a girl in a red hoodie", "a boy in a blue hoodie", "a girl in a green kimono with white stars"]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A tokenizer of CLIP's class trained on three sentences: vocab.json and merges.txt."""
    shell = CLIPTokenizer().backend_tokenizer  # CLIP's normalizer and pre-tokenizer around an empty vocabulary
    new = Tokenizer(models.BPE(unk_token=END, continuing_subword_prefix="", end_of_word_suffix="</w>"))
    new.normalizer, new.pre_tokenizer = shell.normalizer, shell.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=120, special_tokens=[START, END], end_of_word_suffix="</w>", show_progress=False
    )
    new.train_from_iterator(SENTENCES, trainer)
    new.model.save(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("pad_id", "truth"), [(None, "ids_sd1_pad49407"), (49407, "ids_sd1_pad49407"), (0, "ids_sd2_pad0")]
)
def test_thirty_prompts_get_the_official_ids(pad_id: int | None, truth: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two of them are too long, by intention
        ids = tokenize(load_tokenizer(pad_id=pad_id), OFFICIAL["prompts"])
    expected = torch.tensor(OFFICIAL[truth])
    assert ids.dtype == torch.long
    wrong = [p for p, a, b in zip(OFFICIAL["prompts"], ids, expected, strict=True) if not torch.equal(a, b)]
    assert not wrong


def test_a_prompt_that_is_too_long_is_cut_and_the_lost_words_are_named():
    tokenizer = load_tokenizer()
    prompt = " ".join(["word"] * 75 + ["kimono", "sandals"])
    with pytest.warns(UserWarning, match="these words were cut: 'kimono sandals'"):
        ids = tokenize(tokenizer, [prompt])
    assert torch.equal(ids[0, :-1], tokenize(tokenizer, [" ".join(["word"] * 75)])[0, :-1])
    assert ids[0, -1] == tokenizer.eos_token_id


def test_a_prompt_that_just_fits_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenize(load_tokenizer(), [" ".join(["word"] * 75)]).shape == (1, 77)


def test_a_word_that_is_cut_in_the_middle_is_named_whole():
    prompt = " ".join(["word"] * 74 + ["qwxzkjvq"])
    with pytest.warns(UserWarning, match="'qwxzkjvq'"):
        tokenize(load_tokenizer(), [prompt])


def test_ids_do_not_depend_on_how_the_tokenizer_was_used_before():
    tokenizer = load_tokenizer()
    before = tokenize(tokenizer, SENTENCES)
    tokenizer(SENTENCES, padding="max_length", truncation=True, max_length=5)
    assert torch.equal(tokenize(tokenizer, SENTENCES), before)


def test_no_prompts_give_no_rows():
    assert tokenize(load_tokenizer(), []).shape == (0, 77)


def test_a_small_trained_tokenizer_loads_by_the_same_function(tiny: Path):
    tokenizer = load_tokenizer(tiny)
    ids = tokenize(tokenizer, SENTENCES)
    assert ids.shape == (3, 77)
    assert ids.max() < len(json.loads((tiny / "vocab.json").read_text()))
    for row, sentence in zip(ids, SENTENCES, strict=True):
        assert row[0] == tokenizer.bos_token_id
        assert row[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row, skip_special_tokens=True).strip() == sentence


@pytest.mark.parametrize("files", ["all", "tokenizer.json"])
def test_what_is_saved_as_a_diffusers_folder_gives_the_same_ids_again(tiny: Path, tmp_path: Path, files: str):
    tokenizer = load_tokenizer(tiny, pad_id=5)
    folder = tmp_path / "model" / "tokenizer"
    tokenizer.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        if files == "tokenizer.json":
            (folder / name).unlink(missing_ok=True)
    assert torch.equal(tokenize(load_tokenizer(folder.parent), SENTENCES), tokenize(tokenizer, SENTENCES))


def test_a_folder_of_stable_diffusion_2_pads_with_0_and_keeps_exclamation_marks_together(tmp_path: Path):
    """Its pad_token is "!", which must not be cut out of "!!!": the official ids have one token for the three."""
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77, "pad_token": "!"}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "!", "lstrip": False}}))
    index = next(i for i, prompt in enumerate(OFFICIAL["prompts"]) if "!!!" in prompt)
    ids = tokenize(load_tokenizer(tmp_path), [OFFICIAL["prompts"][index]])
    assert ids[0].tolist() == OFFICIAL["ids_sd2_pad0"][index]


def test_a_folder_without_a_tokenizer_says_what_was_expected(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"expected vocab.json and merges.txt"):
        load_tokenizer(tmp_path)


def test_a_damaged_vocabulary_is_an_error_of_ours(tiny: Path):
    (tiny / "vocab.json").write_text('{"a": ')
    with pytest.raises(WeightsError, match="not a CLIP tokenizer"):
        load_tokenizer(tiny)


def test_a_vocabulary_without_start_and_end_is_refused(tiny: Path):
    """transformers would add them behind the vocabulary, where the text encoder has no rows."""
    vocabulary = json.loads((tiny / "vocab.json").read_text())
    kept = [token for token in vocabulary if token != START]
    (tiny / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(kept)}))
    with pytest.raises(WeightsError, match="startoftext"):
        load_tokenizer(tiny)


@pytest.mark.parametrize("pad_id", [-1, 49408])
def test_a_padding_id_outside_the_vocabulary_is_refused(pad_id: int):
    with pytest.raises(WeightsError, match="49408 tokens"):
        load_tokenizer(pad_id=pad_id)
