"""Builds the wheel (PEP 517, PEP 660): the Python files, what queen.h declares, and libqueen.so.

QUEEN_LIBRARY   the library to bundle; without it cargo builds it from the clone around this folder
QUEEN_HEADER    the queen.h that belongs to it; without it that of the clone, or the one beside this file
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import declarations

HERE = Path(__file__).resolve().parent
CLONE = HERE.parent.parent
PACKAGE = HERE / "queen"
SOURCES = ["pyproject.toml", "build_backend.py", "declarations.py", "README.md"]

METADATA = """\
Metadata-Version: 2.1
Name: libqueen
Version: {version}
Summary: Native client for Queen MQ, with a broker inside of the process
License: Apache-2.0
Classifier: Development Status :: 4 - Beta
Classifier: Framework :: AsyncIO
Classifier: Framework :: Pytest
Classifier: Intended Audience :: Developers
Classifier: License :: OSI Approved :: Apache Software License
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Python :: 3
Classifier: Typing :: Typed
Requires-Python: >=3.9
Description-Content-Type: text/markdown

"""
ENTRY_POINTS = "[pytest11]\nlibqueen = queen.pytest_plugin\n"


def header() -> str:
    named = os.environ.get("QUEEN_HEADER")
    places = [Path(named)] if named else [CLONE / "include" / "queen.h", HERE / "queen.h"]
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise SystemExit(
        f"libqueen: there is no {' and no '.join(map(str, places))}; set QUEEN_HEADER to the path of queen.h"
    )


def version(text: str) -> str:
    found = re.search(r'#define QUEEN_VERSION_STRING "(.+?)"', text)
    if not found:
        raise SystemExit("libqueen: the header has no QUEEN_VERSION_STRING")
    return found[1]


def library() -> bytes:
    named = os.environ.get("QUEEN_LIBRARY")
    if named:
        return Path(named).read_bytes()
    if not (CLONE / "Cargo.toml").is_file():
        raise SystemExit(
            "libqueen: set QUEEN_LIBRARY to the path of libqueen.so; without it this builds in a clone of libqueen alone"
        )
    command = ["cargo", "build", "--release", "--lib", "--message-format=json-render-diagnostics"]
    try:
        built = subprocess.run(command, cwd=CLONE, stdout=subprocess.PIPE, check=True)
    except FileNotFoundError:
        raise SystemExit("libqueen: Rust is missing: install it from https://rustup.rs, or set QUEEN_LIBRARY") from None
    for line in built.stdout.splitlines():
        artifact: Dict[str, Any] = json.loads(line)
        for name in artifact.get("filenames", []):
            if name.endswith("libqueen.so"):
                return Path(name).read_bytes()
    raise SystemExit("libqueen: cargo has built no libqueen.so")


def tag(binary: bytes) -> str:
    """py3-none-PLATFORM: one wheel for every Python. The platform tells the oldest glibc that has what the library asks for."""
    machine = platform.machine()
    asked = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", binary)]
    system = f"manylinux_2_{max(asked)}" if asked else "linux"
    return f"py3-none-{system}_{machine}"


def generated() -> Tuple[str, Dict[str, bytes]]:
    """The version, and what is not in the source tree."""
    text = header()
    return version(text), {"_native.py": declarations.module(text).encode(), "libqueen.so": library()}


class Wheel:
    """A wheel under way: a zip file with a list of what is in it."""

    def __init__(self, folder: str, number: str, its_tag: str) -> None:
        self.info = f"libqueen-{number}.dist-info"
        self.name = f"libqueen-{number}-{its_tag}.whl"
        self.number, self.tag = number, its_tag
        self.zip = zipfile.ZipFile(Path(folder) / self.name, "w", zipfile.ZIP_DEFLATED)
        self.record: List[Tuple[str, str, str]] = []

    def add(self, path: str, content: bytes) -> None:
        entry = zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0))  # the same input makes the same wheel
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = (0o755 if path.endswith(".so") else 0o644) << 16
        self.zip.writestr(entry, content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        self.record.append((path, f"sha256={digest}", str(len(content))))

    def close(self) -> str:
        for name, content in info_files(self.number).items():
            self.add(f"{self.info}/{name}", content)
        wheel = f"Wheel-Version: 1.0\nGenerator: libqueen\nRoot-Is-Purelib: false\nTag: {self.tag}\n"
        self.add(f"{self.info}/WHEEL", wheel.encode())
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([*self.record, (f"{self.info}/RECORD", "", "")])
        self.zip.writestr(f"{self.info}/RECORD", out.getvalue())
        self.zip.close()
        return self.name


def info_files(number: str) -> Dict[str, bytes]:
    text = METADATA.format(version=number) + (HERE / "README.md").read_text(encoding="utf-8")
    files = {"METADATA": text.encode(), "entry_points.txt": ENTRY_POINTS.encode()}
    licence = CLONE / "LICENSE"
    if licence.is_file():
        files["LICENSE"] = licence.read_bytes()
    return files


def python_files() -> Dict[str, bytes]:
    files = {path for pattern in ("*.py", "py.typed") for path in PACKAGE.rglob(pattern)}
    return {str(path.relative_to(HERE)): path.read_bytes() for path in sorted(files) if path.name != "_native.py"}


Settings = Optional[Mapping[str, Any]]


def get_requires_for_build_wheel(config_settings: Settings = None) -> List[str]:
    return []


get_requires_for_build_editable = get_requires_for_build_sdist = get_requires_for_build_wheel


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: Optional[str] = None
) -> str:
    number, made = generated()
    wheel = Wheel(wheel_directory, number, tag(made["libqueen.so"]))
    for path, content in python_files().items():
        wheel.add(path, content)
    for name, content in made.items():
        wheel.add(f"queen/{name}", content)
    return wheel.close()


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: Optional[str] = None
) -> str:
    number, made = generated()
    for name, content in made.items():
        (PACKAGE / name).write_bytes(content)
    wheel = Wheel(wheel_directory, number, tag(made["libqueen.so"]))
    wheel.add("libqueen.pth", f"{HERE}\n".encode())
    return wheel.close()


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """Without the library: who builds it names one by QUEEN_LIBRARY."""
    text = header()
    number = version(text)
    files = {name: (HERE / name).read_bytes() for name in SOURCES}
    files.update(python_files())
    files["queen.h"] = text.encode()
    files["PKG-INFO"] = info_files(number)["METADATA"]
    name = f"libqueen-{number}.tar.gz"
    with tarfile.open(Path(sdist_directory) / name, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(f"libqueen-{number}/{path}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return name


if __name__ == "__main__":  # what it would declare, for type checkers that look at the source tree
    (PACKAGE / "_native.py").write_text(declarations.module(header()), encoding="utf-8")
    sys.stdout.write(f"{PACKAGE / '_native.py'} is written\n")
