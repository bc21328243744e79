"""Make the bundled validation clips again: synthetic speech by flite and espeak-ng, as 16 kHz mono FLAC.

    apt-get install flite espeak-ng
    python benchmarks/make_clips.py [--out DIR]

Writes NAME.flac for every sentence below and clips.json (text, seconds, voice, SHA-256, and the versions of the
tools). The same versions make the same bytes; another libsndfile may encode the same samples differently.
The sentences were written for this project. Sets were chosen by voice before any model heard the clips.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from whisper_factory import digest

SAMPLE_RATE = 16_000
LEVEL = 0.015  # root mean square of every clip: -36 dBFS, quiet speech, which FLAC packs smaller
CLIPS = Path(__file__).resolve().parent.parent / "whisper_factory" / "clips"

FLITE = ["flite", "-o", "{wav}", "-t", "{text}", "-voice"]
ESPEAK = ["espeak-ng", "-w", "{wav}", "{text}"]
VOICES = {
    "slt": [*FLITE, "slt"],
    "slt-slow": [*FLITE, "slt", "--setf", "duration_stretch=1.15"],
    "awb": [*FLITE, "awb"],
    "awb-slow": [*FLITE, "awb", "--setf", "duration_stretch=1.1"],
    "rms": [*FLITE, "rms"],
    "rms-fast": [*FLITE, "rms", "--setf", "duration_stretch=0.9"],
    "kal16": [*FLITE, "kal16"],
    "kal16-high": [*FLITE, "kal16", "--setf", "int_f0_target_mean=125"],
    "espeak-us": [*ESPEAK, "-v", "en-us", "-s", "150"],
    "espeak-us-low": [*ESPEAK, "-v", "en-us", "-s", "140", "-p", "30"],
    "espeak-us-f3": [*ESPEAK, "-v", "en-us+f3", "-s", "145"],
    "espeak-gb": [*ESPEAK, "-v", "en-gb", "-s", "145"],
    "espeak-gb-rp": [*ESPEAK, "-v", "en-gb-x-rp", "-s", "135"],
    "espeak-gb-high": [*ESPEAK, "-v", "en-gb", "-s", "155", "-p", "65"],
}

# Name, voice, text; an indented line continues the one above. The first clip is what a first run prints.
QUICK = """
sample       slt            Good morning. The train to the coast leaves from platform two in a quarter of an
                            hour.
kettle       slt            The kettle is whistling in the kitchen again.
garden       awb            We planted tomatoes and beans along the garden wall last spring.
umbrella     awb-slow       Please take an umbrella, because it will rain before lunch.
library      rms            The library closes early on Friday, so return the books today.
bicycle      rms-fast       My brother repaired the old bicycle and rode it to the market.
letter       kal16          She wrote a long letter to her cousin in Canada.
doctor       kal16-high     The doctor asked him to rest at home for a week.
bridge       espeak-us      The new bridge across the river will open next month.
bakery       espeak-us-f3   There is a small bakery on the corner that sells warm bread.
window       espeak-gb      Could you close the window before you leave the house?
museum       espeak-gb-rp   The museum is free for children and students.
"""
SHORT = """
lamp         slt            Turn off the lamp, please.
soup         espeak-us      This soup needs a little more salt and some fresh parsley.
neighbor     slt            Our neighbor plays the piano every evening after dinner.
ferry        slt-slow       The ferry was late because of the heavy fog in the harbor, and we missed the last
                            bus.
meeting      slt            Is the meeting on Tuesday?
camera       slt-slow       He left his camera on the back seat of the taxi.
snow         slt            Nobody expected so much snow in the middle of April. The whole town was quiet and
                            white.
ticket       slt            I would like two tickets for the late show, please.
teacher      slt            The teacher drew a large circle on the board.
market       awb            Fresh fish is sold at the market every Thursday morning.
engine       awb-slow       The engine makes a strange noise when the car is cold.
village      awb            A narrow road leads from the village to the lake.
winter       awb            In winter the birds come close to the house to look for food, and the children
                            feed them seeds.
answer       awb-slow       Nobody in the room knew the answer to that question.
paint        awb            They want to paint the fence white before the summer.
coffee       awb-slow       Would you like milk and sugar in your coffee?
island       rms            It took us six hours to sail around the island.
choir        rms            The choir is practicing a new song for the wedding, and it already sounds
                            beautiful.
pencil       rms-fast       Write your name at the top of the page with a pencil.
forest       rms            We heard an owl calling somewhere deep in the forest.
shoes        espeak-us-f3   These shoes are comfortable, but they are too expensive.
airport      rms            The bus to the airport stops in front of the hotel. Buy a ticket from the driver.
farmer       rms-fast       The farmer gave each of the children a basket of apples.
clock        rms            The clock on the tower has stopped again.
carpet       kal16          The cat sleeps on the carpet near the fire.
holiday      kal16-high     We are going to spend the holiday in the mountains.
newspaper    kal16          My grandfather reads the newspaper from the last page to the first, and he falls
                            asleep in between.
bottle       kal16-high     Put the empty bottles in the green box outside.
storm        kal16          The storm broke several branches of the old oak tree.
cinema       espeak-gb-high Let us meet outside the cinema at half past seven.
sister       kal16          My sister wants to become an engineer.
puzzle       espeak-us      It was raining, so we stayed at home and finished the puzzle.
office       espeak-us-low  The office is on the third floor, next to the elevator.
recipe       espeak-us-f3   The recipe calls for three eggs, a cup of flour, and a spoon of honey.
blanket      espeak-us-low  There is another blanket in the bottom drawer.
river        espeak-gb      The river is too cold for swimming at this time of year.
photograph   espeak-gb-rp   He keeps a photograph of the whole family in his wallet.
parcel       espeak-gb-high The parcel arrived this morning while you were asleep.
dentist      espeak-gb-rp   I have to see the dentist on Monday.
"""
MIDDLING = """
journey      slt            We started the journey before sunrise and reached the border at noon. The road was
                            empty, and for the first time in weeks nobody complained about the heat.
workshop     slt-slow       My uncle has a small workshop behind his house, where he builds wooden chairs and
                            repairs clocks for the whole neighborhood. I help him on Saturdays.
weather      awb-slow       Tomorrow will be cloudy in the north with some light rain toward evening. In the
                            south it stays dry and warm, with a gentle wind from the west.
lost-keys    awb-slow       I looked for my keys in every pocket, under the sofa, and behind the washing
                            machine. In the end they were still in the front door.
restaurant   rms            The restaurant by the station serves breakfast all day. On a Sunday, order the
                            pancakes with berries and ask for a table near the window.
school       rms            When the school bell rang, the children ran across the yard to the gate, where
                            their parents were waiting in the cold with scarves and umbrellas.
computer     kal16          The computer needs a few minutes to install the update. Do not switch it off or
                            close the lid until the screen shows that everything is ready.
concert      espeak-us      The concert was long, but at the end the audience stood up and clapped until the
                            orchestra came back and played one more piece.
lighthouse   espeak-gb      For fifty years the same man looked after the lighthouse. Every night he climbed
                            the stairs, cleaned the glass, and watched the ships pass in the dark.
"""
LONG = """
moving-house slt            Last month we moved to a new apartment on the other side of the city. The rooms
                            are bright and the neighbors are friendly, but the kitchen is so small that only
                            one person can cook at a time. On the first evening we sat on the floor between
                            the boxes and ate cold pizza, because the plates were lost.
harvest      awb-slow       Every autumn the whole village helps with the harvest. The older people sort the
                            grapes at long tables under the trees, and the younger ones carry the heavy
                            baskets up the hill. When the work is done, there is music in the square, and
                            everybody stays until the lamps go out.
first-job    rms            My first job was in a hardware store that belonged to a very patient man. He knew
                            every screw on the shelves, and he never told a customer that something could not
                            be repaired. What I learned there in one summer has been useful to me ever since,
                            mostly on rainy weekends.
night-train  espeak-us-low  The night train was full, so I spent the journey in the corridor, talking with a
                            musician who was on his way home. He told me about the long winters, and about a
                            violin that he had once left on a bus and found again ten years later.
"""


def main() -> None:
    """Make every clip and the manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=CLIPS, help="directory to write to (default: the package's)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    entries = [make(out, name, voice, text, sets) for name, voice, text, sets in sentences()]
    manifest = {"made_by": "benchmarks/make_clips.py", "tools": tools(), "clips": entries}
    (out / "clips.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    seconds = sum(entry["seconds"] for entry in entries)
    size = sum((out / entry["file"]).stat().st_size for entry in entries)
    print(f"{len(entries)} clips, {seconds:.1f} s, {size / 1e6:.2f} MB in {out}")


def sentences() -> list[tuple[str, str, str, list[str]]]:
    """Name, voice, text and sets of every clip."""
    clips = []
    for table, sets in ((QUICK, ["quick", "full"]), (SHORT + MIDDLING + LONG, ["full"])):
        for line in filter(None, re.sub(r"\n +", " ", table).split("\n")):
            name, voice, text = line.split(None, 2)
            clips.append((name, voice, text, sets))
    return clips


def make(out: Path, name: str, voice: str, text: str, sets: list[str]) -> dict[str, Any]:
    """Speak one sentence into `out`, and describe it."""
    path = out / f"{name}.flac"
    audio = speak(VOICES[voice], text)
    soundfile.write(path, audio, SAMPLE_RATE, subtype="PCM_16", format="FLAC", compression_level=1.0)
    return {"file": path.name, "text": text, "seconds": round(len(audio) / SAMPLE_RATE, 3), "voice": voice,
            "set": sets, "sha256": digest.of_file(path)}  # fmt: skip


def speak(command: list[str], text: str) -> NDArray[np.float32]:
    """The samples [n] at 16 kHz that a synthesizer makes of a text, at the common level."""
    with tempfile.TemporaryDirectory() as scratch:
        wav = str(Path(scratch) / "speech.wav")
        subprocess.run([part.format(wav=wav, text=text) for part in command], check=True)
        audio, rate = soundfile.read(wav, dtype="float32")
    audio = soxr.resample(audio, rate, SAMPLE_RATE, quality="HQ")
    levelled: NDArray[np.float32] = audio * (LEVEL / np.sqrt(np.mean(np.square(audio))))
    return levelled


def tools() -> dict[str, str]:
    """Versions of everything that shapes the bytes."""
    return {
        "flite": _version("flite", r"version: (\S+ .*?) \("),
        "espeak-ng": _version("espeak-ng", r"text-to-speech: (\S+)"),
        "soxr": soxr.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "numpy": np.__version__,
    }


def _version(program: str, pattern: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(pattern, said.stdout + said.stderr)
    return found[1] if found else "unknown"


if __name__ == "__main__":
    main()
