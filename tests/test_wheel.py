"""The project as a wheel: built, installed in an environment of its own, run from another directory."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, text=True, capture_output=True, env=clean | environment,
                          stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return next(out.glob("*.whl"))


def test_it_carries_configuration_and_clips(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "whisper_factory/conf/config.yaml" in names
    assert "whisper_factory/conf/model/tiny.en.yaml" in names
    assert "whisper_factory/clips/sample.flac" in names
    assert not [name for name in names if not name.startswith(("whisper_factory/", "whisper_factory-"))]


def test_installed_elsewhere_it_makes_an_engine(
    wheel: Path, tmp_path: Path, shared_store: Path, one_clip: tuple[str, ...]
) -> None:
    """Its dependencies come from this environment, by a path file; the project itself only from the wheel."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    where = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path)
    site = Path(where.stdout.strip())
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel,
        cwd=tmp_path)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = tmp_path / "work"
    work.mkdir()
    where = run(python, "-c", "import whisper_factory; print(whisper_factory.__file__)", cwd=work)
    assert Path(where.stdout.strip()).is_relative_to(site)
    done = run(tmp_path / "venv" / "bin" / "whisper-factory", "model=tiny.en", f"store.path={shared_store}",
               *one_clip, cwd=work)
    assert "directory   outputs/tiny.en-int8-interactive-contiguous-onnxruntime/" in done.stdout
    assert [path.name for path in work.iterdir()] == ["outputs"]


def test_the_console_script_completes(wheel: Path, tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "whisper_factory", "--shell-completion", "query=bash", cwd=tmp_path,
               COMP_LINE="whisper-factory profile=", COMP_POINT="24", PYTHONPATH=str(ROOT))
    assert {"profile=batch", "profile=duplex_lowmem"} <= set(done.stdout.split())
