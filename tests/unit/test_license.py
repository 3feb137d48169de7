"""The license that the package and the images name is the one that lies beside them, and travels with the package."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_package_images_and_readme_name_the_license_that_is_there() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
    assert 'image.licenses="Apache-2.0"' in (ROOT / "images" / "Containerfile").read_text()
    assert re.search(r"\[Apache License 2\.0\]\(LICENSE\)", (ROOT / "README.md").read_text())


def test_the_license_travels_with_wheel_and_source(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "understudy").mkdir()
    (tmp_path / "understudy" / "__init__.py").write_text("")
    code = "from setuptools.build_meta import build_sdist, build_wheel; build_wheel('dist'); build_sdist('dist')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,), (source,) = (list((tmp_path / "dist").glob(end)) for end in ("*.whl", "*.tar.gz"))
    with zipfile.ZipFile(wheel) as inside:
        (place,) = [name for name in inside.namelist() if name.endswith("/LICENSE")]
        assert inside.read(place).decode() == (ROOT / "LICENSE").read_text()
        metadata = inside.read(next(name for name in inside.namelist() if name.endswith("/METADATA"))).decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "License-File: LICENSE" in metadata
    with tarfile.open(source) as inside_source:
        assert [name for name in inside_source.getnames() if name.count("/") == 1 and name.endswith("/LICENSE")]
