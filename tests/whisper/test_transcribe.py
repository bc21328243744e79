"""From audio to text: batches, windows, languages, limits; and OpenAI's transcripts on real weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper
from numpy.typing import NDArray

from tests.real_engine import clip, tiny_en
from tests.real_weights import TINY_EN, packaged
from tests.whisper.torch_engine import TorchEngine, engine, tokenizer_of
from whisper_factory.errors import UserError
from whisper_factory.whisper import readers
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.normalize import edit_distance, words
from whisper_factory.whisper.options import Options, engine_directory, longest_answer
from whisper_factory.whisper.transcribe import Transcriber

torch.set_num_threads(1)


def transcriber(**about: object) -> Transcriber:
    """Random weights over openai-whisper's decoder."""
    made = engine(**about)  # type: ignore[arg-type]
    return Transcriber(made, tokenizer_of(made.model.dims))


def batches(about: Transcriber) -> list[tuple[int, int]]:
    assert isinstance(about.engine, TorchEngine)
    return about.engine.batches


def noise(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """Something to hear: noise whose loudness wanders."""
    rng = np.random.default_rng(seed)
    count = int(16_000 * seconds)
    shape = np.interp(np.arange(count), np.linspace(0, count, 40), rng.uniform(0, 1, 40))
    return (0.5 * shape * rng.standard_normal(count)).astype(np.float32)


SHORT = Options(max_new_tokens=6)


def test_windows_run_in_full_batches() -> None:
    about = transcriber(max_batch_size=3)
    found = about.transcribe([noise(2 + 3 * seed, seed) for seed in range(7)], SHORT)
    assert batches(about) == [(3, 3000), (3, 3000), (1, 3000)]
    assert [transcript.seconds for transcript in found] == [2.0 + 3 * seed for seed in range(7)]
    assert len({tuple(transcript.tokens) for transcript in found}) > 1


def test_memory_stays_at_hand_from_batch_to_batch_of_one_request() -> None:
    about, said = transcriber(max_batch_size=3), []

    @contextmanager
    def keeping() -> Iterator[None]:
        said.append(("begins", len(batches(about))))
        yield
        said.append(("ends", len(batches(about))))

    about.engine.keeping = keeping  # type: ignore[union-attr]
    about.transcribe([noise(2, seed) for seed in range(4)], SHORT)
    assert said == [("begins", 0), ("ends", 2)]


def test_a_smaller_batch_is_a_wish_to_follow() -> None:
    about = transcriber(max_batch_size=8)
    about.transcribe([noise(2, seed) for seed in range(3)], replace(SHORT, batch_size=2))
    assert batches(about) == [(2, 3000), (1, 3000)]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_clip_hears_nothing_of_its_batch(beams: int) -> None:
    clips = [noise(seconds, seed) for seed, seconds in enumerate((2, 9, 0.4, 70, 5))]
    about, options = transcriber(eot_bias=9.0, seed=2), replace(SHORT, num_beams=beams)
    together = about.transcribe(clips, options)
    for audio, transcript in zip(clips, together, strict=True):
        alone, = about.transcribe([audio], options)
        assert (alone.tokens, alone.text, alone.seams) == (transcript.tokens, transcript.text, transcript.seams)


def test_neighbours_in_length_share_a_window_under_nopad() -> None:
    about = transcriber(max_batch_size=2)
    clips = [noise(seconds) for seconds in (20, 2, 12, 3)]
    about.transcribe(clips, replace(SHORT, padding_strategy="nopad"))
    assert batches(about) == [(2, 750), (2, 3000)]


def test_long_audio_is_joined_from_its_windows() -> None:
    about = transcriber()
    found, = about.transcribe([noise(100)], SHORT)
    ends = [0.0, *(heard.end for heard in found.windows)]
    assert [heard.start for heard in found.windows] == ends[:-1]
    assert ends[-1] == found.seconds == 100.0
    assert found.seams == ends[1:-1]
    assert len(found.seams) >= 3
    assert found.text == " ".join(heard.decoded.text for heard in found.windows if heard.decoded.text)
    assert found.tokens == [token for heard in found.windows for token in heard.decoded.tokens]


def test_trim_cuts_and_says_so() -> None:
    about = transcriber(max_input_len=750)
    audio = noise(10)
    found, = about.transcribe([audio], replace(SHORT, padding_strategy="trim"))
    whole, = about.transcribe([audio[: 16_000 * 15 // 2]], SHORT)
    assert found.tokens == whole.tokens
    assert found.warnings[0] == "the last 2.50 s of 10.00 s were cut off (padding_strategy=trim)"
    assert not any("cut off" in warning for warning in whole.warnings)


def test_a_decoder_that_had_to_be_stopped_is_reported() -> None:
    about = transcriber()  # never ends by itself
    brief, = about.transcribe([noise(0.2)])
    assert (brief.windows[0].decoded.stopped, len(brief.tokens)) == ("budget", 18)  # 16 + 14 * 0.2
    assert "more than anyone speaks in 0.2 s" in brief.warnings[0]
    limited, = about.transcribe([noise(9)], SHORT)
    assert limited.windows[0].decoded.stopped == "length"
    assert limited.warnings == ["0.0 to 9.0 s: stopped at 6 tokens, the most that this engine or max_new_tokens "
                                "allows; words may be missing"]


def test_silence_and_nothing_do_not_fail() -> None:
    about = transcriber()
    for audio in (np.zeros(16_000, np.float32), np.zeros(0, np.float32), np.zeros(16_000 * 70, np.float32),
                  np.full(100, 1e-9, np.float32)):
        found, = about.transcribe([audio], SHORT)
        assert found.seconds == len(audio) / 16_000
    assert about.transcribe([], SHORT) == []


def test_the_first_window_tells_the_language_of_the_clip() -> None:
    about = transcriber(multilingual=True)
    clips = [noise(70, 1), noise(3, 2)]
    found = about.transcribe(clips, SHORT)
    for transcript in found:
        assert {heard.decoded.language for heard in transcript.windows} == {transcript.language}
    first, = about.transcribe([clips[0][: int(16_000 * found[0].seams[0])]], SHORT)
    assert first.language == found[0].language
    assert first.tokens == found[0].windows[0].decoded.tokens


def test_a_language_can_be_given_by_name() -> None:
    about = transcriber(multilingual=True)
    by_name, = about.transcribe([noise(2)], replace(SHORT, language="German"))
    by_code, = about.transcribe([noise(2)], replace(SHORT, language="de"))
    translated, = about.transcribe([noise(2)], replace(SHORT, language="de", task="translate"))
    assert by_name.language == by_code.language == "de"
    assert by_name.tokens == by_code.tokens != translated.tokens


def test_timings_share_a_batch_out() -> None:
    found = transcriber().transcribe([noise(2), noise(3)], SHORT)
    assert found[0].timings == found[1].timings
    assert min(found[0].timings.log_mel, found[0].timings.encoder, found[0].timings.decoder) > 0


@pytest.mark.parametrize(("changes", "message"), [
    ({"num_beams": 6}, r"num_beams=6: this engine takes 1 to 5; .*profile\.max_beam_width=6"),
    ({"num_beams": 0}, r"num_beams=0: this engine takes 1 to 5"),
    ({"max_new_tokens": 225}, r"max_new_tokens=225: .* 1 to 224; .*profile\.max_new_tokens=225"),
    ({"batch_size": 9}, r"batch_size=9: .* 1 to 8; .*profile\.max_batch_size=9"),
    ({"padding_strategy": "nopat"}, r"unknown padding_strategy 'nopat'; did you mean 'nopad'\?"),
    ({"task": "translat"}, r"unknown task 'translat'; did you mean 'translate'\?"),
    ({"task": "translate"}, r"tiny\.en cannot translate: it is English-only; .*\(model=tiny\)"),
    ({"language": "de"}, r"tiny\.en cannot hear language 'de': it is English-only; .*\(model=tiny\)"),
    ({"language": "germn"}, r"unknown language 'germn'; did you mean 'german'\?"),
])
def test_what_cannot_be_done_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        transcriber().transcribe([noise(1)], Options(**changes))  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_english_may_be_named_to_an_english_only_model() -> None:
    about = transcriber()
    assert about.transcribe([noise(1)], replace(SHORT, language="English"))[0].language is None


def test_the_length_limit_is_the_least_of_four() -> None:
    spec = transcriber(max_new_tokens=300).spec
    assert longest_answer(Options(), spec, 2) == 224  # OpenAI's: half the text context
    assert longest_answer(Options(max_new_tokens=30), spec, 2) == 30
    assert longest_answer(Options(), spec, 400) == 48
    assert longest_answer(Options(), transcriber(max_new_tokens=64).spec, 2) == 64


# Real weights.

NAMES = ("sample", "river", "soup", "bakery")
ONE_VOICE = ("journey", "sample", "neighbor", "snow", "ticket", "kettle", "lamp", "moving-house")


@pytest.fixture(scope="module")
def openais() -> whisper.Whisper:
    """openai-whisper with the same weights."""
    weights = readers.read(packaged(TINY_EN).parent, "ctranslate2")
    model = whisper.Whisper(whisper.ModelDimensions(**vars(weights.dimensions)))
    tensors = {name: torch.from_numpy(np.asarray(weights.tensors[name], np.float32)) for name in weights.tensors}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all("mask" in name for name in missing)
    return model.eval()


def reference(model: whisper.Whisper, audio: NDArray[np.float32], beams: int) -> whisper.DecodingResult:
    options = whisper.DecodingOptions(language="en", without_timestamps=True, fp16=False,
                                      beam_size=beams if beams > 1 else None)
    return whisper.decode(model, whisper.log_mel_spectrogram(whisper.pad_or_trim(audio)), options)


@pytest.mark.parametrize("beams", [1, 4])
def test_real_speech_gives_openais_tokens(openais: whisper.Whisper, beams: int) -> None:
    names = NAMES if beams == 1 else NAMES[:2]
    clips = [read_audio(clip(name)) for name in names]
    found = Transcriber.load(tiny_en(), threads=1).transcribe(clips, Options(num_beams=beams))
    for audio, transcript in zip(clips, found, strict=True):
        wanted = reference(openais, audio, beams)
        assert transcript.tokens == wanted.tokens
        assert transcript.text == wanted.text
        assert transcript.windows[0].decoded.avg_logprob == pytest.approx(wanted.avg_logprob, abs=1e-3)
        assert transcript.warnings == []


def test_long_real_speech_is_cut_in_its_pauses() -> None:
    """Sentences in a row give the sentences' transcripts in a row, but for a word that a neighbour changes."""
    about = Transcriber.load(tiny_en() / "engine", threads=1)
    clips = [read_audio(clip(name)) for name in ONE_VOICE]
    alone = [transcript.text for transcript in about.transcribe(clips)]
    joined, = about.transcribe([np.concatenate(clips)])
    assert len(joined.windows) >= 2
    separate = words(" ".join(alone))
    assert edit_distance(words(joined.text), separate) <= 0.03 * len(separate)
    ends = np.cumsum([len(audio) for audio in clips]) / 16_000
    for seam in joined.seams:
        assert np.abs(ends - seam).min() < 0.5


def test_silence_is_not_a_crash_on_real_weights() -> None:
    found, = Transcriber.load(tiny_en(), threads=1).transcribe([np.zeros(16_000, np.float32)])
    assert len(found.tokens) < 10


def test_an_engines_directory_is_found(tmp_path: Path) -> None:
    assert engine_directory(tiny_en()) == tiny_en() / "engine"
    assert engine_directory(tiny_en() / "engine") == tiny_en() / "engine"
    with pytest.raises(UserError, match="is not an engine directory"):
        Transcriber.load(tmp_path)
