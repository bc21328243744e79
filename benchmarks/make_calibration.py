"""Make the bundled calibration clips again: synthetic speech by flite and espeak-ng, as Opus.

    apt-get install flite espeak-ng
    python benchmarks/make_calibration.py [--out DIR]

Writes NAME.opus for every text below and clips.json (text, seconds, voice, noise, SHA-256, and the versions of the
tools). The same versions make the same samples; the encoder puts a random number into each file.
The texts were written for this project, and share no sentence with the validation's clips. Voices and noise go round
in turn, so that every voice is heard clean and in noise. A third of the second set are short turns, as people take
them with a machine, with a pause of one to four seconds after them.
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
SHORT, PAUSES = 45, (1.0, 4.0)  # characters of a text that has less are a short turn; seconds of the pause after it

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
# Talkers in a clip's noise are of its own set: so the first has the samples that it had before there was a second.
MORE = """
The plumber came on Monday, fixed the tap in ten minutes, and charged us for two whole hours.
Please enter your account number, followed by the hash key, or stay on the line to speak to somebody.
A heron stood in the shallow water, perfectly still, as if it had been carved out of grey stone.
We drove through the night and reached the border just before sunrise, tired, hungry and very cold.
Her lecture on medieval bridges was, to everyone's surprise, the funniest part of the whole conference.
The recipe says two teaspoons of salt, but I would start with one and taste it first.
Three of the seven candidates withdrew after the debate, so the ballot had to be printed again.
It is not the cost that worries me, said the widow, it is what the children will think.
Heavy traffic on the ring road this morning, with a queue of four miles near the football ground.
The robot lifts the crate, turns through ninety degrees, and sets it down on the conveyor belt.
Nobody had warned the tourists that the cable car closes at five, so they walked down in the dark.
My sister's wedding is on the twenty third of May, and I still haven't found a pair of shoes.
In the attic we discovered a trunk full of maps, uniforms, and letters tied with green ribbon.
Is there a pharmacy nearby that stays open on Sundays, or should I try the one at the airport?
The printer is out of paper again, and the spare cartridges are locked in the manager's cupboard.
Light travels about three hundred thousand kilometres in one second, which is hard to imagine.
He apologised twice, yet his tone suggested that he would do exactly the same tomorrow.
The bakery smelled of cinnamon, and a line of people stretched all the way to the fountain.
Remember to save your work before you close the window, otherwise the last changes will be lost.
A gust of wind tore the umbrella out of her hands and carried it across the canal.
The minister refused to answer questions about the contract, and left by the side entrance.
Our guide pointed at the ceiling and explained why the painter had left one angel unfinished.
You can borrow my tent if you like, but the zip sticks and one of the poles is bent.
The orchestra will perform works by Haydn and Brahms on Thursday, the eleventh of November.
Between you and me, I think the old coach knew more about defending than all of them together.
Sorry to bother you so late, but there is water coming through the kitchen ceiling.
Two suspects were arrested in Manchester on Friday after a chase that lasted almost forty minutes.
The tortoise lives in the garden from April to October and sleeps in a box through the winter.
If the light on the front turns orange, hold the button for six seconds and let go.
They say that the general kept a diary, but no page of it has ever been found.
Our profit grew by eight percent, mainly because customers in Brazil and Mexico ordered more spare parts.
The baby laughed every time the train went past, so we stayed on that bench for an hour.
I read the contract from beginning to end, and I still don't know who pays for the insurance.
Boil the eggs for seven minutes, cool them under running water, and peel them while they're warm.
Somewhere in the forest an owl called, and a moment later another one answered.
The judge gave him a choice between a fine of nine hundred dollars and thirty hours of work.
Excuse me, is this seat taken? My friend and I would like to sit together.
Snow is expected above six hundred metres tonight, with icy roads in the eastern valleys.
The inventor sold his patent for almost nothing and regretted it for the rest of his days.
Take the lift to level four, turn left, and ask for Mrs Patel at the information desk.
Every evening the fishermen mend their nets on the quay and tell the same old stories.
The vaccine was tested on eleven thousand people in five countries before it was approved.
What I like best about this town is that you can hear the sea from almost every street.
Without a word she folded the letter, put it into the stove, and watched it burn.
Next song, please.
Turn the volume down.
Set a timer for fifteen minutes.
Cancel that.
What time is it?
Call me back when you can.
Lights off in the kitchen.
Thirteen, fourteen.
Good afternoon.
Is anybody there?
My surname is Walker, W A L K E R.
The postcode is K T four, nine D P.
Zero eight hundred, six one three, two seven.
Mhm, I see.
How much is it?
Sixteen pounds eighty.
Tomorrow at noon.
Read it to me once more.
I don't know.
Wrong number, sorry.
"""


def main() -> None:
    """Make every clip and the manifest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="directory to write to (default: the package's)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    sets = ((0, TEXTS), (64, MORE))
    entries = [entry for first, texts in sets for entry in make(out, texts.strip().splitlines(), first)]
    manifest = {"made_by": "benchmarks/make_calibration.py", "tools": make_clips.tools(), "clips": entries}
    (out / "clips.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    seconds, size = sum(entry["seconds"] for entry in entries), sum(path.stat().st_size for path in out.iterdir())
    print(f"{len(entries)} clips, {seconds:.1f} s, {size / 1e6:.2f} MB in {out}")


def make(out: Path, texts: list[str], first: int) -> list[dict[str, Any]]:
    """Write the clips of a set, numbered from `first` on, and describe them."""
    voices, turns = list(VOICES), range(first, first + len(texts))
    voiced = [voices[turn % len(voices)] for turn in turns]
    spoken = [make_clips.speak(VOICES[voice], text) for voice, text in zip(voiced, texts, strict=True)]
    entries = []
    for place, (turn, text) in enumerate(zip(turns, texts, strict=True)):
        level = NOISES[turn % len(NOISES)]
        samples = in_noise(spoken, place, turn, level)
        if len(text) < SHORT:
            samples = np.concatenate([samples, pause(spoken[place], turn, level)])
        entries.append(keep(out / f"{turn:02d}.opus", text, samples, voice=voiced[place], noise_db=level))
    return entries


def in_noise(spoken: list[NDArray[np.float32]], place: int, turn: int, level: int | None) -> NDArray[np.float32]:
    """A clip with pink noise or babble of the others, in turn."""
    if level is None:
        return spoken[place]
    rng, length = np.random.default_rng([turn, level]), len(spoken[place])
    noise = speech.pink(length, rng) if turn // len(NOISES) % 2 else speech.talkers(spoken, place, length, rng)
    return speech.mixed(spoken[place], noise, level)


def pause(spoken: NDArray[np.float32], turn: int, level: int | None) -> NDArray[np.float32]:
    """Silence, or pink noise as loud as a clip's own."""
    rng = np.random.default_rng([turn, 0])
    length = int(rng.uniform(*PAUSES) * make_clips.SAMPLE_RATE)
    if level is None:
        return np.zeros(length, np.float32)
    noise = speech.pink(length, rng)
    loudness = np.mean(np.square(spoken)) / np.mean(np.square(noise)) / 10 ** (level / 10)
    return (noise * np.sqrt(loudness)).astype(np.float32)


def keep(path: Path, text: str, samples: NDArray[np.float32], **about: Any) -> dict[str, Any]:
    """Write one clip, and describe it."""
    soundfile.write(path, samples, make_clips.SAMPLE_RATE, format="OGG", subtype="OPUS",
                    compression_level=COMPRESSION)
    return {"file": path.name, "text": text, "seconds": round(len(samples) / make_clips.SAMPLE_RATE, 3), **about,
            "sha256": digest.of_file(path)}


if __name__ == "__main__":
    main()
