"""Packages as pip would leave them on disk, made up for a test."""

from __future__ import annotations

from pathlib import Path

INSTRUMENTOR = """
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

class Instrumentor(BaseInstrumentor):
    def instrumentation_dependencies(self):
        return ()
    def _instrument(self, **arguments):
        print("instrumented {name}", sorted(arguments))
    def _uninstrument(self, **arguments):
        pass
"""


def distribution(folder: Path, name: str, library: str = "", value: str = "", extra: str = "instruments") -> None:
    """Install an instrumentor for `library`, as pip would."""
    module = f"wk_instrumentation_{name}"
    (folder / f"{module}.py").write_text(INSTRUMENTOR.replace("{name}", name))
    home = folder / f"opentelemetry_instrumentation_{name}-1.0.dist-info"
    home.mkdir()
    requires = f"Requires-Dist: {library} >= 1; extra == '{extra}'\n" if library else ""
    (home / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: opentelemetry-instrumentation-{name}\nVersion: 1.0\n"
        f"Requires-Dist: opentelemetry-api\n{requires}\nRequires-Dist: nothing; extra == 'instruments'\n"
    )
    (home / "entry_points.txt").write_text(
        "[console_scripts]\nx = y:z\n\n[opentelemetry_instrumentor]\n"
        f"{name} = {value or f'{module}:Instrumentor'}\n\n[other]\na = b:c\n"
    )


def library(folder: Path, name: str, modules: tuple[str, ...], top_level: bool = False) -> None:
    """Install a library whose modules are called otherwise than its distribution."""
    home = folder / f"{name.replace('-', '_')}-2.0.dist-info"
    home.mkdir()
    for module in modules:
        (folder / f"{module}.py").write_text(f"print('imported {module}')\n")
    (home / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    record = "".join(f"{module}.py,sha256=x,1\n" for module in modules)
    (home / "RECORD").write_text(record + f"{home.name}/METADATA,,\n")
    if top_level:
        (home / "top_level.txt").write_text("\n".join(modules))
