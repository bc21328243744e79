"""A manifest of human speech, from recordings with transcripts that Debian packages.

    apt-get install pocketsphinx-testdata asterisk-core-sounds-en asterisk-core-sounds-en-gsm sox libsox-fmt-all
    python benchmarks/human_clips.py DIR
    python -m whisper_factory model=tiny.en profile=duplex_lowmem validation=full validation.clips=DIR/clips.jsonl

Telephone prompts (one professional speaker, 8 kHz GSM), card names, and read prose (16 kHz). The recordings are not
part of this project. Prompts of 1 to 7 s whose text is words alone are taken, every third one, in order of name.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
from pathlib import Path

import soundfile

PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
PROMPT_TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
SPHINX = Path("/usr/share/pocketsphinx/test/data")
EVERY = 3


def prompts(out: Path) -> list[tuple[Path, str]]:
    """Telephone prompts, converted to WAV by sox: without dither, which is other noise each time."""
    found = []
    for line in gzip.decompress(PROMPT_TEXTS.read_bytes()).decode("utf-8", "replace").splitlines():
        name, _, text = line.strip().partition(": ")
        recording = PROMPTS / f"{name}.gsm"
        if len(text.split()) >= 3 and not re.search(r"[\[\]<>;()]|\d", text) and recording.exists():
            found.append((recording, text))
    chosen = []
    for recording, text in sorted(found)[::EVERY]:
        wav = out / f"{recording.stem}.wav"
        subprocess.run(["sox", "-D", recording, "-r", "16000", "-b", "16", wav], check=True)
        if 1.0 <= soundfile.info(wav).duration <= 7.0:
            chosen.append((wav, text))
    return chosen


def sphinx() -> list[tuple[Path, str]]:
    """Card names and read prose; "text (name)" a line."""
    found = []
    for folder, listing in (("cards", "cards.transcription"), ("librivox", "transcription")):
        for line in (SPHINX / folder / listing).read_text(encoding="utf-8").splitlines():
            said = re.fullmatch(r"(?:<s>)?\s*(.*?)\s*(?:</s>)?\s*\((\S+)\)\s*", line)
            if said and (SPHINX / folder / f"{said[2]}.wav").exists():
                found.append((SPHINX / folder / f"{said[2]}.wav", said[1]))
    return found


def main() -> None:
    """Write DIR/clips.jsonl."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    clips = [*prompts(out), *sphinx()]
    lines = [json.dumps({"audio": str(path), "text": text}) for path, text in clips]
    (out / "clips.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(clips)} clips in {out / 'clips.jsonl'}")


if __name__ == "__main__":
    main()
