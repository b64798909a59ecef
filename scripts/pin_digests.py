"""Pin every image of docker-compose.yml and examples/Dockerfile to the digest that its tag has now.

    python scripts/pin_digests.py            writes name:tag@sha256:... in place of name:tag
    python scripts/pin_digests.py --check    says which are not pinned, and fails if any

Needs `docker` with buildx and a network; asks each image's registry for the digest of the whole (all platforms).
Nothing is written unless every registry has answered. What this repository builds itself has no digest to pin.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("docker-compose.yml", "examples/Dockerfile")
IMAGE = re.compile(
    r"^(?P<before>\s*(?:image:|FROM)\s+)(?P<name>[\w./-]+:[\w.-]+)(?P<digest>@sha256:[0-9a-f]{64})?[ \t]*$",
    re.MULTILINE,
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def images(root: Path) -> dict[str, bool]:
    """Return every image with a tag, and whether it is pinned everywhere."""
    found: dict[str, bool] = {}
    for file in FILES:
        for match in IMAGE.finditer((root / file).read_text(encoding="utf-8")):
            found[match["name"]] = found.get(match["name"], True) and match["digest"] is not None
    return found


def digest_of(image: str) -> str:
    """Ask the image's registry; end with what to do when it does not answer."""
    words = ["docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", image]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemExit(f"{image}: {error}; install docker with buildx, and see that its registry answers") from None
    said = done.stdout.strip()
    if done.returncode or not DIGEST.fullmatch(said):
        raise SystemExit(f"{image}: {done.stderr.strip() or said or 'no answer'}; nothing was written")
    return said


def pin(root: Path) -> list[str]:
    """Write the digests of all tags; return a line for each image."""
    digests = {image: digest_of(image) for image in images(root)}
    for file in FILES:
        text = (root / file).read_text(encoding="utf-8")
        pinned = IMAGE.sub(lambda match: f"{match['before']}{match['name']}@{digests[match['name']]}", text)
        (root / file).write_text(pinned, encoding="utf-8")
    return [f"{image}@{digest}" for image, digest in digests.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if an image has no digest")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.check:
        print("\n".join(pin(options.root)))
        return 0
    loose = [image for image, pinned in images(options.root).items() if not pinned]
    print("\n".join(f"{image} has no digest; run python scripts/pin_digests.py" for image in loose) or "all pinned")
    return 1 if loose else 0


if __name__ == "__main__":
    sys.exit(main())
