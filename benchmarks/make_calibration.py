"""Make the bundled calibration clips again: synthetic speech by flite and espeak-ng, as Opus.

    apt-get install flite espeak-ng
    python benchmarks/make_calibration.py [--out DIR]

Writes NAME.opus for every text below and clips.json (text, seconds, voice, noise, SHA-256, and the versions of the
tools). The same versions make the same samples; the encoder puts a random number into each file.
The texts were written for this project, and share no sentence with the validation's clips. Voices and noise go round
in turn, so that every voice is heard clean and in noise.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import make_clips
import numpy as np
import soundfile
import speech
from numpy.typing import NDArray

from whisper_factory import digest

OUT = Path(__file__).resolve().parent.parent / "whisper_factory" / "calibration" / "clips"
COMPRESSION = 0.945  # libsndfile's, 0 to 1: about 17 kbit a second
VOICES: dict[str, list[str]] = {
    "slt": [*make_clips.FLITE, "slt"],
    "espeak-us": [*make_clips.ESPEAK, "-v", "en-us", "-s", "155"],
    "awb": [*make_clips.FLITE, "awb"],
    "rms": [*make_clips.FLITE, "rms"],
    "espeak-us-f2": [*make_clips.ESPEAK, "-v", "en-us+f2", "-s", "150"],
    "slt-slow": [*make_clips.FLITE, "slt", "--setf", "duration_stretch=1.2"],
    "kal16": [*make_clips.FLITE, "kal16"],
    "espeak-gb": [*make_clips.ESPEAK, "-v", "en-gb", "-s", "150"],
    "rms-fast": [*make_clips.FLITE, "rms", "--setf", "duration_stretch=0.9"],
    "espeak-us-m5": [*make_clips.ESPEAK, "-v", "en-us+m5", "-s", "135", "-p", "40"],
    "awb-fast": [*make_clips.FLITE, "awb", "--setf", "duration_stretch=0.88"],
    "slt-fast": [*make_clips.FLITE, "slt", "--setf", "duration_stretch=0.9"],
    "espeak-gb-rp": [*make_clips.ESPEAK, "-v", "en-gb-x-rp", "-s", "140"],
}
# Decibels of the speech over the noise; None is none. Its length shares no factor with that of the voices.
NOISES: tuple[int | None, ...] = (None, None, 20, None, 10, None, None, 5)

TEXTS = """
I called the bank twice this week, but nobody could tell me why the payment was refused.
Mister Collins arrived at four o'clock with a bag of oranges and a very long story about his neighbour's dog.
If you want to change your order, please visit the page named my account and choose returns.
How long have you been waiting here? We could share a cab to the theatre if you like.
The committee approved a budget of three hundred and fifty thousand dollars for the new swimming pool.
She had never been fond of company, yet she could not refuse an invitation so kindly given.
Okay, so the first thing we need to do is back up the server, and then we restart it.
In nineteen eighty four the factory employed more than two thousand people, most of them women.
Professor Martinez explained that the planet's atmosphere contains very little oxygen and a great deal of methane.
I don't think that's a good idea. What if it breaks down on the highway in the middle of the night?
Welcome back to the show. Today we are talking about sleep, stress, and why Mondays feel so hard.
The judge listened carefully to both sides before she announced that the trial would continue in September.
There's a gentleman at the door who says he knew your father when they served in the navy.
Mix the butter with the sugar until it turns pale, then beat in the eggs one after another.
Our flight to Chicago has been delayed by ninety minutes because of thunder and lightning over the lake.
He spoke so quickly, and with such a strong accent, that hardly anyone understood the joke.
All of our agents are busy right now. Your call is important to us, so please stay on the line.
The goalkeeper dived to his left and pushed the ball against the post, and the whole stadium held its breath.
Whether the bones belong to a wolf or to a large dog, the scientists were unable to say.
Yes, I'd like to book a double room for two nights, with breakfast, from the ninth to the eleventh of June.
Far beyond the hills a thin column of smoke was rising, and the soldiers began to whisper among themselves.
You should drink more water and take these tablets twice a day after meals, said the nurse.
Prices for copper and wheat fell sharply yesterday, while oil remained almost unchanged at eighty one dollars.
What a wonderful surprise! I thought you were still in Australia with Emily and the twins.
The software checks every file for errors before it is sent, which is why the upload takes so long.
My grandmother kept a box of buttons on the shelf, and each of them had belonged to somebody she loved.
Turn right at the second traffic light, go past the petrol station, and you will see a yellow gate.
The prisoner was led into a narrow room where a single candle was burning on the table.
Honestly, the second season was boring, although the actor who played the detective was brilliant.
Between the sixth and the eighth century, monks copied thousands of books by hand in cold stone rooms.
Could somebody please tell Jennifer that her meeting with the lawyer has been moved to half past ten?
Volunteers planted six hundred young pines along the valley to protect the village from avalanches.
To hear this message again, say repeat. To delete it, say delete. For anything else, just hang up.
The violin was made in Italy, and it is said that its owner refused a million pounds for it.
Never in my life have I felt so foolish as when I walked on stage wearing two different boots.
The president thanked the firefighters and promised that every family would receive help before winter.
Let me check. Your balance is one hundred and twelve euros and forty cents, due on the fifteenth.
A magnet attracts iron and nickel, but wood, glass and plastic are not affected by it at all.
They laughed, they argued, and finally they agreed to sell the farm and divide the money equally.
Could you speak a little louder? The connection is bad and there's a lot of noise in the background.
The captain ordered his men to lower the boats, for the water had already reached the second deck.
Tonight's main course is grilled salmon with lemon, green asparagus, and potatoes from our own fields.
Well, you know, I used to run every day, but since I hurt my knee I mostly swim or cycle.
The exhibition shows early photographs of Paris, Vienna and Prague, together with letters from the artists.
Scientists in Norway discovered that young reindeer sleep with their eyes half open during the long summer days.
Ladies and gentlemen, we will shortly be landing. Please fasten your seat belts and put away your tables.
His voice trembled as he read the final page, and for a while none of us knew what to say.
The password must have at least twelve characters and should contain a number and a capital letter.
Across the street a boy with a red cap was selling peanuts, matches and yesterday's magazines.
I'm afraid the dishwasher isn't working. Could you send someone to repair it on Wednesday afternoon?
According to the report, unemployment dropped to five point two percent, the lowest level in a decade.
Once upon a time there was a miller who had three sons, a donkey, and a cat that could talk.
Thank you for your patience. Doctor Henderson will see you now, it's the third door on the right.
The river police searched the harbour all night, but they found nothing except an empty wooden box.
We ought to be grateful, he replied, that the roof has held through so many terrible storms.
Add the two numbers, multiply the result by seven, and write your solution at the bottom.
My colleague Thomas speaks Spanish, Russian and a bit of Japanese, which is handy at trade fairs.
Because the ice was too thin, the race had to be cancelled for the first time since nineteen sixty.
Do you remember the blue house near the beach where we spent every August when we were kids?
The queen, who was tired of flattery, asked the old gardener for his honest opinion instead.
Every passenger must show a valid passport, and liquids over one hundred millilitres are not allowed.
The microscope revealed tiny crystals that looked like feathers, stars and broken needles.
She whistled, and from behind the barn came a huge brown horse, followed by two curious goats.
So that is my question to you: would you rather be famous for a year or content forever?
"""


def main() -> None:
    """Make every clip and the manifest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="directory to write to (default: the package's)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    texts, voices = TEXTS.strip().splitlines(), list(VOICES)
    spoken = [make_clips.speak(VOICES[voices[turn % len(voices)]], text) for turn, text in enumerate(texts)]
    entries = []
    for turn, text in enumerate(texts):
        level = NOISES[turn % len(NOISES)]
        entries.append(keep(out / f"{turn:02d}.opus", text, in_noise(spoken, turn, level),
                            voice=voices[turn % len(voices)], noise_db=level))
    manifest = {"made_by": "benchmarks/make_calibration.py", "tools": make_clips.tools(), "clips": entries}
    (out / "clips.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    seconds, size = sum(entry["seconds"] for entry in entries), sum(path.stat().st_size for path in out.iterdir())
    print(f"{len(entries)} clips, {seconds:.1f} s, {size / 1e6:.2f} MB in {out}")


def in_noise(spoken: list[NDArray[np.float32]], turn: int, level: int | None) -> NDArray[np.float32]:
    """A clip with pink noise or babble of the others, in turn."""
    if level is None:
        return spoken[turn]
    rng, length = np.random.default_rng([turn, level]), len(spoken[turn])
    noise = speech.pink(length, rng) if turn // len(NOISES) % 2 else speech.talkers(spoken, turn, length, rng)
    return speech.mixed(spoken[turn], noise, level)


def keep(path: Path, text: str, samples: NDArray[np.float32], **about: Any) -> dict[str, Any]:
    """Write one clip, and describe it."""
    soundfile.write(path, samples, make_clips.SAMPLE_RATE, format="OGG", subtype="OPUS",
                    compression_level=COMPRESSION)
    return {"file": path.name, "text": text, "seconds": round(len(samples) / make_clips.SAMPLE_RATE, 3), **about,
            "sha256": digest.of_file(path)}


if __name__ == "__main__":
    main()
