"""Where decoders go round in circles: what int4 engines make of 255 recordings that invite it, as a Markdown table.

    apt-get install flite espeak-ng
    python benchmarks/hard_windows.py --work outputs/hard --models tiny.en
    python benchmarks/hard_windows.py --work outputs/hard --rows "precision=int4 calibration=gptq calibration.seed=1"

One to four short words and then seconds of silence or noise, numbers, spelt letters, sentences that break off, and
sentences at 5 dB: texts and voices that neither calibrate nor validate anything. *Circles* are the recordings in which
the decoder went round without an end, *runaways* those of them out of which it could not be taken; *off* is the share
of words that differ from what the float32 engine hears, for what is said matters less here than that it ends. A row is
what is composed beside model and profile.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import make_clips
import numpy as np
import soundfile
import speech
from make_clips import ESPEAK, FLITE
from memory import build
from numpy.typing import NDArray

from whisper_factory.whisper.dimensions import SAMPLE_RATE
from whisper_factory.whisper.normalize import edit_distance, words

FLOAT = "precision=float32"
SEED = 7
VOICES: dict[str, list[str]] = {
    "kal": [*FLITE, "kal"],
    "awb-high": [*FLITE, "awb", "--setf", "int_f0_target_mean=150"],
    "espeak-gb-f5": [*ESPEAK, "-v", "en-gb+f5", "-s", "145"],
    "espeak-us-m1": [*ESPEAK, "-v", "en-us+m1", "-s", "150"],
    "slt-low": [*FLITE, "slt", "--setf", "int_f0_target_mean=140"],
    "espeak-lancaster": [*ESPEAK, "-v", "en-gb-x-gbclan", "-s", "140"],
    "espeak-us-f1": [*ESPEAK, "-v", "en-us+f1", "-s", "140"],
    "rms-low": [*FLITE, "rms", "--setf", "int_f0_target_mean=80"],
    "espeak-nyc": [*ESPEAK, "-v", "en-us-nyc", "-s", "150"],
    "espeak-gb-m4": [*ESPEAK, "-v", "en-gb+m4", "-s", "150"],
    "kal16-low": [*FLITE, "kal16", "--setf", "int_f0_target_mean=85"],
}
SHORT = """six six; no; yes; nine; stop; hello; okay; right; seven seven; four four four; two two; wait
no no no; yes yes; bye bye; goodbye; thank you; one one; three three three; zero zero; eight; ten; left turn
good night; very well; maybe; hello hello; five; two five; nine nine one; come in; all right; of course
never mind; twelve; eleven eleven; six two six; help; go on; again and again; one two; four five four
seven eight; zero nine; pardon; excuse me; later; sure; why not; eight eight eight eight; fifty five
thirty three; twenty twenty; one hundred; ace of spades; queen of hearts; ten of clubs; king; jack of diamonds
Monday; Tuesday afternoon; London; so so; bravo; alpha bravo; delta; tango tango; A A; B B C; X Y Z"""
NUMBERS = """one two three four five six seven eight; nine eight seven six five four three
zero zero four four nine one; five five five one two one two; my number is seven seven three two two six
one one two three five eight thirteen twenty one; two hundred and twenty two
six hundred sixty six thousand six hundred sixty six; call four one five five five five two six seven one
the code is nine nine nine four four four; three point one four one five nine two six; room two two four
bus number sixty seven leaves at seven fifteen; eleven twelve thirteen fourteen fifteen sixteen
ten nine eight seven six five four three two one; double seven double oh three; four score and seven
page one hundred and eleven; one thousand one hundred and one; in the year two thousand and twenty
twenty two forty four sixty six eighty eight; one and one is two and two and two is four; eighteen eighty eight
seventy seven seventy seven; half past eleven on the eleventh; flight six oh six gate sixteen
oh five oh five oh five; thirty thirty three thirty six; nine nine nine nine nine nine
dial zero one six one four nine six"""
SPELT = """A B C D E F G; S M I T H; J O H N S O N; my name is spelt B R O W N; W W W dot; H T T P S; U S A
B B C; P as in Peter; M M M N N; double L A M A; A N N A; Z O E; Q R S T U V; E E E; O T T O
that is spelt C O L L I N S; X X L; I B M; K L M; A A A; V I P; F B I; N A S A; L O L A"""
SENTENCES = """
The engineers decided to replace every cable before the concert started.
Would you mind closing the window while I finish my homework?
Several hundred people gathered outside the embassy on Saturday morning.
I bought some apples, some pears, and a large watermelon at the corner shop.
The doctor told him that he should rest and avoid heavy work for a month.
When the music stopped, everybody looked at the stranger in the doorway.
Please remember to bring your own towel and a bottle of sunscreen.
Our teacher showed us a map of the islands and asked who had been there.
It was snowing so hard that the bus could not climb the hill.
The company will open three new stores in Scotland next year.
He opened the box, and inside the box there was another box.
Run as fast as you can, and do not look back until you reach the bridge.
The lighthouse keeper had not spoken to anyone since the beginning of autumn.
Could I have the bill, please, and two glasses of water?
They painted the ceiling white and the walls a very pale green.
The horse jumped over the fence and disappeared into the fog.
My neighbour plays the trumpet every evening between six and seven.
A small company in Denmark makes most of the world's hearing aids.
After the storm we found broken branches all over the road.
She said no, and then she said maybe, and in the end she said yes.
The museum is free on the first Sunday of every month.
Tell me about the time when you lived in the desert.
Both teams played well, but neither of them managed to score.
This road leads to the village, and that one leads to the quarry.
The answer to the last question was much simpler than we had expected.
He counted the coins again and again, but the sum was always wrong.
Nobody knows how the cat got onto the roof of the church.
We can meet at the station, at the hotel, or at my office.
The old bakery on the square sells the best bread in town.
If the alarm rings, leave the building by the nearest exit."""

Samples = NDArray[np.float32]


def recordings() -> Iterator[tuple[str, str, Samples]]:
    """Kind, text and samples of each, of at most 7.5 s; the same tools make the same samples."""
    rng, commands = np.random.default_rng(SEED), cycle(VOICES.values())

    def say(text: str) -> Samples:
        return make_clips.speak(next(commands), text)

    for text, levels in zip(_phrases(SHORT), cycle(((None, 30), (20, None), (None, 10)))):
        for level in levels:
            yield "short words", text, _followed(say(text), float(rng.uniform(2, 7)), level, rng)
    for text, level in zip(_phrases(NUMBERS), cycle((10, None, 20))):
        yield "numbers", text, _followed(say(text), float(rng.uniform(0.2, 3)), level, rng)
    for text, level in zip(_phrases(SPELT), cycle((None, 25))):
        yield "spelt", text, _followed(say(text), float(rng.uniform(0.2, 5)), level, rng)
    whole = []
    for text, (pause, level) in zip(SENTENCES.strip().splitlines(), cycle(((0, None), (2, None), (4, 20)))):
        whole.append(say(text))
        part = whole[-1][: int(len(whole[-1]) * rng.uniform(0.3, 0.8))]
        yield "broken off", text, _followed(part, pause, level, rng)
    for number, (text, spoken) in enumerate(zip(SENTENCES.strip().splitlines(), whole, strict=True)):
        noise = speech.pink(len(spoken), rng) if number % 2 else speech.talkers(whole, number, len(spoken), rng)
        yield "5 dB", text, speech.mixed(spoken, noise, 5)


def _phrases(lines: str) -> list[str]:
    return [phrase for line in lines.splitlines() for phrase in line.split("; ")]


def _followed(spoken: Samples, seconds: float, level: float | None, rng: np.random.Generator) -> Samples:
    """Speech, begun within 0.4 s, and silence after it; with noise over all of it, if a level in dB is given."""
    pauses = [np.zeros(int(length * SAMPLE_RATE), np.float32) for length in (rng.uniform(0, 0.4), seconds)]
    whole = np.concatenate([pauses[0], spoken, pauses[1]])
    if level is None:
        return whole
    length = len(whole)
    noise = speech.pink(length, rng) if rng.random() < 0.5 else rng.standard_normal(length).astype(np.float32)
    power = np.mean(np.square(spoken)) / np.mean(np.square(noise)) / 10 ** (level / 10)
    return whole + np.float32(np.sqrt(power)) * noise


def collect(folder: Path) -> list[speech.Spoken]:
    """All recordings, written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, (kind, text, samples) in enumerate(recordings()):
        path = folder / f"{number:03d}.wav"
        soundfile.write(path, samples[: int(speech.LONGEST * SAMPLE_RATE)], SAMPLE_RATE, subtype="FLOAT")
        found.append(speech.Spoken(path, text, kind, path.stem))
    return found


def cells(spoken: list[speech.Spoken], exact: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[str]:
    """Circles of each kind and of all, runaways, and the share of words that are off."""
    kinds = list(dict.fromkeys(one.condition for one in spoken))
    counts = [sum(report["circles"] > 0 or report["runaway"] for one, report in zip(spoken, found, strict=True)
                  if one.condition == kind) for kind in kinds]
    said = [words(report["text"]) for report in exact]
    off = sum(edit_distance(one, words(report["text"])) for one, report in zip(said, found, strict=True))
    runaways = sum(report["runaway"] for report in found)
    return [*map(str, [*counts, sum(counts), runaways]), f"{100 * off / sum(map(len, said)):.1f}"]


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="recordings, engines and reports; kept")
    parser.add_argument("--models", nargs="+", default=["tiny.en"])
    parser.add_argument("--rows", nargs="+", default=["precision=int4 calibration=gptq"], help="each in quotes")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    work = options.work.resolve()
    spoken = collect(work / "recordings")
    kinds = dict.fromkeys(one.condition for one in spoken)
    print(f"{len(spoken)} recordings", file=sys.stderr)
    header = ("model", "engine", *kinds, "circles", "runaways", "off, %")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)
    for model in options.models:
        exact: list[dict[str, Any]] = []
        for row in (FLOAT, *options.rows):
            engine = build(work, "profile=duplex_lowmem", f"model={model}", *row.split())[1]
            language = None if model.endswith(".en") else "en"
            found = speech.hear(engine, spoken, work, options.threads, language=language)
            exact = exact or found
            label = row.replace("precision=", "")
            print(f"| {model} | {label} | {' | '.join(cells(spoken, exact, found))} |", flush=True)


if __name__ == "__main__":
    main()
