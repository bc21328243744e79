"""What beam search gains over greedy: word error rates of the same recordings, paired, as a Markdown table.

    python benchmarks/beams.py --work outputs/beams --models tiny.en base --manifest DIR/clips.jsonl

The recordings are speech.py's (it says what it needs), and a manifest's, as human_clips.py makes one. The engine is
profile=batch with room for five beams, in windows of 3000 frames. The differences are greedy's WER minus the beam
search's, in percentage points with a 95 % interval (see paired.py): above zero where beams are better.
"""

from __future__ import annotations

from pathlib import Path

import paired
import speech
from memory import build
from precisions import machine

from whisper_factory.measure import _versions

BEAMS = (4, 5)
HEADER = ("model", "precision", "recordings", "n", "greedy WER %",
          *(cell for beams in BEAMS for cell in (f"{beams} beams WER %", f"greedy - {beams} beams, points")),
          "RTF greedy", *(f"RTF {beams} beams" for beams in BEAMS))


def main() -> None:
    """Print the table as it grows."""
    parser = speech.arguments(__doc__)
    parser.add_argument("--precision", default="int8")
    options = parser.parse_args()
    work: Path = options.work.resolve()
    spoken = speech.collect(work / "recordings", options.manifest, options.sentences)
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    for model in options.models:
        engine = build(work, "profile=batch", f"profile.max_beam_width={max(BEAMS)}", f"model={model}",
                       f"precision={options.precision}")[1]
        language = None if model.endswith(".en") else "en"
        found = {beams: speech.hear(engine, spoken, work, options.threads, language=language, num_beams=beams)
                 for beams in (1, *BEAMS)}
        for condition in (*dict.fromkeys(one.condition for one in spoken), "all"):
            chosen = [index for index, one in enumerate(spoken) if condition in (one.condition, "all")]
            said, groups = [spoken[index].text for index in chosen], [spoken[index].sentence for index in chosen]
            texts = {beams: [heard[index]["text"] for index in chosen] for beams, heard in found.items()}
            gains = [paired.difference(said, texts[beams], texts[1], groups) for beams in BEAMS]
            audio_s = sum(found[1][index]["seconds"] for index in chosen)
            factors = [sum(found[beams][index]["latency_s"] for index in chosen) / audio_s for beams in (1, *BEAMS)]
            cells = [model, options.precision, condition, str(len(chosen)), f"{gains[0].second:.2f}",
                     *(cell for gain in gains for cell in (f"{gain.first:.2f}", str(gain))),
                     *(f"{factor:.3f}" for factor in factors)]
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{machine(_versions('onnxruntime'), options.threads)}")


if __name__ == "__main__":
    main()
