"""Two processes, one engine: which memory they share, and what stays private. A Markdown table.

    python benchmarks/shared_weights.py --engine_dir outputs/.../

Both load the engine, encode a window and decode a few tokens, and wait; then /proc/PID/smaps of the second is read.
Shared: file pages that the other has mapped too. Private: what exists once for each process.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from whisper_factory.whisper.options import engine_directory

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from whisper_factory import backends
engine = backends.load(Path(sys.argv[1]), threads=1)
spec = engine.spec
utterance = engine.encode(np.zeros((1, spec.dimensions.n_mels, spec.window_frames), np.float32))
for token in range(3):
    utterance.decode(np.array([[token]]))
print("ready", flush=True)
sys.stdin.read()
"""
KINDS = ("Rss", "Pss", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty")


def smaps(pid: int) -> dict[str, dict[str, int]]:
    """Bytes by the file that is mapped ("" for none), and by kind."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(KINDS, 0))
    name = ""
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if header := re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)", line):
            name = Path(header[1]).name if header[1].startswith("/") else ""
        elif (kind := line.partition(":")[0]) in KINDS:
            found[name][kind] += 1024 * int(line.split()[1])
    return found


def share(engine: Path) -> dict[str, dict[str, int]]:
    """What the second of two processes with this engine holds."""
    command = [sys.executable, "-c", PROGRAM, str(engine)]
    processes = []
    try:
        for _ in range(2):
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            assert processes[-1].stdout is not None
            if processes[-1].stdout.readline() != "ready\n":
                raise SystemExit(f"{engine} could not be run")
        return smaps(processes[-1].pid)
    finally:
        for process in processes:
            process.communicate()


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine_dir", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    engine = engine_directory(options.engine_dir).resolve()
    found = share(engine)
    if options.json:
        options.json.write_text(json.dumps(found), encoding="utf-8")
    files = {file.name: file.stat().st_size for file in engine.iterdir()}
    print("| memory | file MB | resident MB | shared MB | private MB |\n|---|---|---|---|---|")
    rest = dict.fromkeys(KINDS, 0)
    for name, sizes in sorted(found.items()):
        if name and name not in files:  # libraries
            rest = {kind: rest[kind] + sizes[kind] for kind in KINDS}
    rows = {**{name: found[name] for name in sorted(found) if name in files}, "libraries": rest, "no file": found[""]}
    for name, sizes in rows.items():
        shared = sizes["Shared_Clean"] + sizes["Shared_Dirty"]  # dirty: written a moment ago, not on the disk yet
        private = sizes["Private_Clean"] + sizes["Private_Dirty"]
        cells = [f"{size / 1e6:.1f}" for size in (files.get(name, 0), sizes["Rss"], shared, private)]
        print(f"| {name} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
