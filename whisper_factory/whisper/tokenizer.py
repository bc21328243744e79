"""Whisper's tokens to text, the prompts, and what the decoder may never say.

The order of the special tokens and the suppressed symbols are OpenAI's (whisper/tokenizer.py); the text vocabulary
comes from a rank file. Nothing is downloaded or cached.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from whisper_factory.errors import UserError, choices
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.languages import LANGUAGES, resolve_language
from whisper_factory.whisper.splitting import pieces
from whisper_factory.whisper.vocabulary import RankFile

TASKS = ("transcribe", "translate")
TIMESTAMPS = 1501  # <|0.00|> to <|30.00|> in steps of 20 ms

# Signs of speaker tags, captions and markup. A sign that takes several tokens is let through, except music
# notes: their first token begins only signs of U+2640 to U+267F.
SIGNS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    "<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}",
    "♪♪", "♪♪♪",
)  # fmt: skip
NOTES = "♩♪♫♬♭♮♯"


@dataclass(frozen=True)
class Tokenizer:
    """The tokens of one model. Build it with `Tokenizer.load`."""

    ranks: RankFile
    special: dict[str, int]  # name -> id, the timestamps too
    is_multilingual: bool
    num_languages: int

    @classmethod
    def load(cls, path: Path, dimensions: Dimensions) -> Tokenizer:
        """The tokenizer of a model, from its rank file.

        Raises:
            UserError: the rank file is missing, malformed, or of another size than the model's vocabulary.
        """
        ranks = RankFile(path)
        names = _special_names(dimensions.num_languages)
        size = len(ranks) + len(names)
        if size != dimensions.n_vocab:
            raise UserError(f"'{path}' makes a vocabulary of {size} tokens, the model has {dimensions.n_vocab}; "
                            "multilingual models need OpenAI's multilingual.tiktoken, .en models gpt2.tiktoken")
        special = {name: len(ranks) + place for place, name in enumerate(names)}
        return cls(ranks, special, dimensions.is_multilingual, dimensions.num_languages)

    @property
    def eot(self) -> int:
        """End of the text, and the first of the special tokens."""
        return self.special["<|endoftext|>"]

    @property
    def sot(self) -> int:
        """Start of the prompt."""
        return self.special["<|startoftranscript|>"]

    @property
    def translate(self) -> int:
        """The task of translating into English."""
        return self.special["<|translate|>"]

    @property
    def transcribe(self) -> int:
        """The task of writing down what is said."""
        return self.special["<|transcribe|>"]

    @property
    def sot_lm(self) -> int:
        """Start of text without audio."""
        return self.special["<|startoflm|>"]

    @property
    def sot_prev(self) -> int:
        """Start of the text before this window."""
        return self.special["<|startofprev|>"]

    @property
    def no_speech(self) -> int:
        """Predicted right after `sot` where nobody speaks."""
        return self.special["<|nospeech|>"]

    @property
    def no_timestamps(self) -> int:
        """End of a prompt that asks for text alone."""
        return self.special["<|notimestamps|>"]

    @property
    def timestamp_begin(self) -> int:
        """<|0.00|>, the first timestamp; all later tokens are timestamps."""
        return self.special["<|0.00|>"]

    @cached_property
    def language_tokens(self) -> dict[str, int]:
        """Language code -> token."""
        return {code: self.sot + 1 + place for place, code in enumerate(list(LANGUAGES)[: self.num_languages])}

    def prompt(self, language: str | None = None, task: str = "transcribe") -> list[int]:
        """The tokens that start a transcript without timestamps.

        Args:
            language: code or English name; needed by a multilingual model, at most "en" for an English-only one.
            task: "transcribe", or "translate" (into English; multilingual models only).

        Raises:
            UserError: the model cannot do that task or does not know that language.
        """
        if task not in TASKS:
            raise UserError(f"unknown task '{task}'; {choices(task, TASKS)}")
        code = None if language is None else resolve_language(language, self.num_languages)
        if not self.is_multilingual:
            if task != "transcribe" or code not in (None, "en"):
                raise UserError("an English-only model can only transcribe English; use a model without '.en'")
            return [self.sot, self.no_timestamps]
        if code is None:
            raise UserError("a multilingual model's prompt needs a language; name it, or detect it first")
        return [self.sot, self.language_tokens[code], self.special[f"<|{task}|>"], self.no_timestamps]

    @cached_property
    def suppressed_tokens(self) -> tuple[int, ...]:
        """Tokens that are never said: signs that are not speech, and special tokens that are not answers."""
        found = {self.ranks.rank(b" -"), self.ranks.rank(b" '")}  # inside a word both are welcome
        for sign in SIGNS:
            found |= {self.ranks.rank(sign.encode()), self.ranks.rank(f" {sign}".encode())}
        for note in NOTES:
            found |= {self.ranks.merge(note.encode())[0], self.ranks.merge(f" {note}".encode())[0]}
        found |= {self.transcribe, self.translate, self.sot, self.sot_prev, self.sot_lm, self.no_speech}
        return tuple(sorted(token for token in found if token is not None))

    @cached_property
    def blank_tokens(self) -> tuple[int, ...]:
        """Tokens that may not come first: a lone space, and the end."""
        return (*self.ranks.merge(b" "), self.eot)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, as OpenAI's; what looks like a special token is text."""
        return [token for piece in pieces(text) for token in self.ranks.merge(piece.encode())]

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of tokens; special tokens and timestamps are dropped, broken UTF-8 is replaced."""
        return b"".join(self.ranks.token(token) for token in tokens if token < self.eot).decode("utf-8", "replace")


def _special_names(num_languages: int) -> list[str]:
    """The special tokens in the order of their ids, which follow the text vocabulary."""
    return [
        "<|endoftext|>", "<|startoftranscript|>",
        *(f"<|{code}|>" for code in list(LANGUAGES)[:num_languages]),
        "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
        *(f"<|{place * 0.02:.2f}|>" for place in range(TIMESTAMPS)),
    ]  # fmt: skip
