"""`python -m queen`: which version this is, and where its library lies."""

from __future__ import annotations

import json
import platform
import sys
from typing import Any, Dict, List

from ._lib import PATH, VERSION, lib
from .broker import Broker
from .errors import QueenError


def information() -> Dict[str, Any]:
    """What it tells."""
    try:
        with Broker(testing=False):
            embedded = True
    except QueenError:
        embedded = False
    return {
        "version": VERSION,
        "library": str(PATH),
        "libraryVersion": (lib.queen_version_string() or b"").decode(),
        "libraryBytes": PATH.stat().st_size,
        "embeddedBroker": embedded,
        "operations": len(json.loads(lib.queen_operations_json(None) or b"[]")),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
    }


def main(arguments: List[str]) -> int:
    """Tells it, as JSON with --json."""
    told = information()
    if arguments == ["--json"]:
        sys.stdout.write(json.dumps(told) + "\n")
    elif arguments:
        sys.stderr.write("usage: python -m queen [--json]\n")
        return 2
    else:
        for name, value in told.items():
            sys.stdout.write(f"{name:<16}{value}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
